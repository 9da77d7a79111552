"""The benchmark harness: data sets, metrics, baselines, runs and reports. `python -m benchmarks --help`."""

"""Many runs side by side: in processes of this machine, or as tasks of a Ray cluster."""

import itertools
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.run import execute
from benchmarks.spec import RunSpec

PRELOADED = ["benchmarks.datasets", "benchmarks.methods", "benchmarks.metrics", "transformers.models.llama"]

Work = Callable[[RunSpec, Path, str], Path]


@dataclass(frozen=True)
class Outcome:
    """What came of one run: its folder, or the error that ended it and where it arose."""

    spec: RunSpec
    folder: Path | None
    error: str | None = None
    trace: str = ""


def specs(
    models: Sequence[str],
    methods: Sequence[str],
    datasets: Sequence[str],
    sizes: Mapping[int, tuple[int, ...]],
    options: Mapping[str, Mapping[str, Any]],
    data: Mapping[str, str],
    metrics: Sequence[str],
    part: str = "test",
    within: int | None = None,
    scored: int | None = None,
) -> list[RunSpec]:
    """Every combination; `sizes` is seed -> sizes, `options` method -> settings, `data` data set -> folder."""
    where = {name: (data.get(name), tuple(metrics), within, scored) for name in datasets}
    return [
        RunSpec(model, method, dataset, sizes[seed], seed, part, options.get(method, {}), *where[dataset])
        for model, dataset, seed, method in itertools.product(models, datasets, sizes, methods)
    ]


def in_processes(
    runs: Sequence[RunSpec], out: Path, command: str = "", jobs: int = 1, work: Work = execute
) -> Iterator[Outcome]:
    """Runs on this machine, `jobs` at a time; outcomes come as runs end.

    Each run has a process of its own, so that its peak memory is its own, with an equal share of the threads that
    PyTorch has here. A run that fails does not stop the others.

    Args:
        runs: what to run.
        out: the folder of results.
        command: what the user typed, for run.json.
        jobs: how many at a time.
        work: makes one run; a function that a new process can import.
    """
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    if os.name == "posix":
        context.set_forkserver_preload(PRELOADED)
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        futures = {pool.submit(_one, work, spec, out, command, threads): spec for spec in runs}
        for future in as_completed(futures):
            # The pool gives up on all runs when one process dies, as it does when memory runs out.
            yield future.result() if not future.exception() else _failed(futures[future], future.exception())


def on_ray(
    runs: Sequence[RunSpec], out: Path, address: str, command: str = "", jobs: int = 1, work: Work = execute
) -> Iterator[Outcome]:
    """Runs as tasks of a Ray cluster, one core each; outcomes come as runs end.

    The harness, the models and the data must lie at the same places on every machine, and `out` on a disk that all
    of them share.

    Args:
        runs, out, command, work: as `in_processes` takes them.
        address: of the cluster; "local" starts one on this machine.
        jobs: cores of the cluster that "local" starts.

    Raises:
        ImportError: if Ray is not installed.
    """
    with _cluster(address, jobs) as ray:
        remote = ray.remote(num_cpus=1, max_calls=1, max_retries=0)(_one)
        waiting = {remote.remote(work, spec, out.absolute(), command, 1): spec for spec in runs}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting), num_returns=1)
            spec = waiting.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayError as error:
                yield _failed(spec, error)


@contextmanager
def _cluster(address: str, jobs: int) -> Iterator[Any]:
    try:
        import ray
    except ImportError:
        raise ImportError("--ray needs Ray: pip install ray, or leave the option out to run in processes") from None
    started = not ray.is_initialized()
    if started:
        where = {"num_cpus": jobs, "include_dashboard": False} if address == "local" else {"address": address}
        paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
        ray.init(log_to_driver=False, configure_logging=False, runtime_env={"env_vars": {"PYTHONPATH": paths}}, **where)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


def _one(work: Work, spec: RunSpec, out: Path, command: str, threads: int) -> Outcome:
    torch.set_num_threads(threads)
    try:
        return Outcome(spec, work(spec, out, command))
    except Exception as error:  # one run that fails must not end the sweep
        return _failed(spec, error)


def _failed(spec: RunSpec, error: BaseException) -> Outcome:
    return Outcome(spec, None, f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))

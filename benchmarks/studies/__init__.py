"""Measurements of one thing each, called as `python -m benchmarks NAME`."""

import argparse


def parser_of(name: str, description: str | None) -> argparse.ArgumentParser:
    """For the arguments of the study in the module `name`."""
    command = f"python -m benchmarks {name.rpartition('.')[2].replace('_', '-')}"
    return argparse.ArgumentParser(
        command, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )

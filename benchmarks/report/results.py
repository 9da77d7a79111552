"""The results of runs, read from their folders and brought together over seeds."""

import itertools
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from benchmarks.folder import read_json, read_lines, read_progress
from benchmarks.spec import RunSpec

OURS = ("memoir", "wise")  # how the names of our own memories begin; every other method is a baseline


@dataclass(frozen=True, order=True)
class Column:
    """What a table is about: a metric, of one kind of question where it has kinds."""

    metric: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.metric} ({self.kind})" if self.kind else self.metric


@dataclass(frozen=True)
class Figure:
    """A mean over seeds and, from two seeds on, the sample standard deviation over them."""

    mean: float
    sd: float | None
    seeds: int


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        spec: what was run.
        about: `run.json`.
        finished: False where it was ended early; what it has is used.
        values: (size, column) -> mean over records.
        matches: match scores of sorts of prompts, and their threshold; None where the method has none.
        lost: what was forgotten at the end, mean over the first hundred edits, the second, and so on.
    """

    spec: RunSpec
    about: dict[str, Any]
    finished: bool
    values: dict[tuple[int, Column], float]
    matches: dict[str, Any] | None
    lost: tuple[float, ...]

    @property
    def label(self) -> str:
        """The method, with its settings where they were given."""
        settings = ", ".join(f"{key}={json.dumps(value)}" for key, value in sorted(self.spec.options.items()))
        return f"{self.spec.method} ({settings})" if settings else self.spec.method


@dataclass(frozen=True)
class Group:
    """Runs that may be compared: one model, one data set, one part of it."""

    model: str
    dataset: str
    part: str
    runs: tuple[Run, ...]

    @property
    def title(self) -> str:
        part = "" if self.part == "test" else f", {self.part} part"
        return f"{self.dataset} on {PurePath(self.model).name}{part}"

    @cached_property
    def labels(self) -> list[str]:
        """Our memories first, then the baselines, each by name."""
        return sorted({run.label for run in self.runs}, key=lambda label: (not is_ours(label), label))

    @cached_property
    def sizes(self) -> list[int]:
        return sorted({size for run in self.runs for size, _ in run.values})

    @cached_property
    def columns(self) -> dict[str, list[Column]]:
        """Group of metrics -> its columns, both in the order in which the runs have them."""
        about = {name: told for run in self.runs for name, told in run.about["metrics"].items()}
        found = {column for run in self.runs for _, column in run.values}
        columns: dict[str, list[Column]] = {}
        for name, told in about.items():
            columns.setdefault(told["group"], []).extend(sorted(c for c in found if c.metric == name))
        return {group: those for group, those in columns.items() if those}

    @cached_property
    def better(self) -> dict[str, str]:
        """Metric -> "higher" or "lower"."""
        return {name: told["better"] for run in self.runs for name, told in run.about["metrics"].items()}

    def figure(self, label: str, size: int, column: Column) -> Figure | None:
        """What a method reached; None where no run has it."""
        found = [run.values[size, column] for run in self.runs if run.label == label and (size, column) in run.values]
        return _figure(found) if found else None

    def figures(self) -> Iterator[dict[str, Any]]:
        """Every figure as plain data."""
        where = {"model": PurePath(self.model).name, "dataset": self.dataset, "part": self.part}
        for group, columns in self.columns.items():
            for column, label, size in itertools.product(columns, self.labels, self.sizes):
                if (figure := self.figure(label, size, column)) is not None:
                    yield {**where, "method": label, "edits": size, "group": group, **asdict(column), **asdict(figure)}

    def overall(self, label: str, size: int, metric: str) -> float | None:
        """The mean of a metric's columns: each kind of question counts the same."""
        columns = [c for those in self.columns.values() for c in those if c.metric == metric]
        found = [figure.mean for c in columns if (figure := self.figure(label, size, c)) is not None]
        return statistics.fmean(found) if found else None


def is_ours(label: str) -> bool:
    """Whether a method is one of our memories."""
    return label.startswith(OURS)


def read_results(folder: Path) -> list[Group]:
    """Everything in a folder of results, but for visual runs, whose metrics are others.

    Raises:
        ValueError: if there is no run in it, or a file of one cannot be read.
    """
    runs = [_read_run(path.parent) for path in sorted(folder.glob("*/run.json")) if not _is_visual(path)]
    if not runs:
        raise ValueError(f"{folder} holds no runs; give a folder that `python -m benchmarks run` wrote")
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.spec.model, run.spec.dataset, run.spec.part), []).append(run)
    return [Group(*key, tuple(those)) for key, those in sorted(groups.items())]


def _is_visual(about: Path) -> bool:
    return "gaps" in read_json(about)["spec"]


def _read_run(folder: Path) -> Run:
    about, progress = read_json(folder / "run.json"), read_progress(folder)
    lines = read_lines(folder / "scores.jsonl", progress.lengths.get("scores.jsonl", 0))
    order = {line["id"]: line["edit"] for line in read_lines(folder / "edits.jsonl")}
    spec, matches = RunSpec.from_dict(about["spec"]), read_json(folder / "matches.json")
    return Run(spec, about, progress.finished, _means(lines), matches, _lost(lines, order, spec.sizes[-1]))


def _lost(lines: Iterable[dict[str, Any]], order: Mapping[str, int], size: int) -> tuple[float, ...]:
    hundreds: dict[int, list[float]] = {}
    for line in lines:
        if line["metric"] == "forgetting" and line["edits"] == size and line["record"] in order:
            hundreds.setdefault(order[line["record"]] // 100, []).append(line["value"])
    return tuple(statistics.fmean(hundreds[number]) for number in sorted(hundreds))


def _means(lines: Iterable[dict[str, Any]]) -> dict[tuple[int, Column], float]:
    found: dict[tuple[int, Column], list[float]] = {}
    for line in lines:
        found.setdefault((line["edits"], Column(line["metric"], line["kind"])), []).append(line["value"])
    return {key: statistics.fmean(values) for key, values in found.items()}


def _figure(values: Sequence[float]) -> Figure:
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Figure(statistics.fmean(values), sd, len(values))

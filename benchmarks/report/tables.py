"""Tables as plain rows of text, before they become Markdown or HTML."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report.results import Column, Figure, Group, is_ours

CLEARLY = 0.01  # what counts as better; of costs, as a share
UNEDITED = "none"  # the method that edits nothing: keeps everything by doing nothing, so it beats nobody


@dataclass(frozen=True)
class Table:
    """A heading, a header row, and rows; cells in `bold` are (row, column) numbers; `words` if not of figures."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: frozenset[tuple[int, int]] = frozenset()
    words: bool = False


def number(value: float) -> str:
    """A figure with three digits that mean something; bytes and the like with thousands' separators."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.2e}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"


def cell(figure: Figure | None) -> str:
    """ "mean ± sd", the mean alone of one seed, n/a where there is nothing."""
    if figure is None:
        return "n/a"
    return number(figure.mean) + (f" ± {number(figure.sd)}" if figure.sd is not None else "")


def score_tables(group: Group, metric_group: str) -> Iterator[Table]:
    """For each column of a group of metrics, methods by numbers of edits; the best of each number in bold."""
    for column in group.columns[metric_group]:
        figures = [[group.figure(label, size, column) for size in group.sizes] for label in group.labels]
        rows = tuple(
            (label, *map(cell, those)) for label, those in zip(group.labels, figures, strict=True) if any(those)
        )
        kept = [those for those in figures if any(those)]
        bold = frozenset(
            (row, place + 1)
            for place in range(len(group.sizes))
            for row in _best(group, column, [those[place] for those in kept])
        )
        arrow = {"higher": "higher is better", "lower": "lower is better"}[group.better[column.metric]]
        yield Table(f"{column} ({arrow})", ("method", *(f"{size:,} edits" for size in group.sizes)), rows, bold)


def _best(group: Group, column: Column, figures: list[Figure | None]) -> list[int]:
    means = [figure.mean for figure in figures if figure is not None]
    if not means:
        return []
    best = max(means) if group.better[column.metric] == "higher" else min(means)
    return [row for row, figure in enumerate(figures) if figure is not None and number(figure.mean) == number(best)]


@dataclass(frozen=True)
class Beaten:
    """One of our memories, and the baselines that are clearly better at something, the best of them first."""

    ours: str
    column: Column
    size: int
    value: float
    baselines: tuple[tuple[str, float], ...]


def beaten(group: Group) -> list[Beaten]:
    """Every case where a baseline is better than one of our memories by more than `CLEARLY`.

    Of costs, the difference is taken as a share of the larger figure. The unedited model is not counted.
    """
    found = []
    ours = [label for label in group.labels if is_ours(label)]
    others = [label for label in group.labels if not is_ours(label) and label != UNEDITED]
    columns = [(name, column) for name, those in group.columns.items() for column in those]
    for label in ours:
        for name, column in columns:
            for size in group.sizes:
                if (own := group.figure(label, size, column)) is None:
                    continue
                rivals = {o: f.mean for o in others if (f := group.figure(o, size, column)) is not None}
                better = {o: v for o, v in rivals.items() if _lead(group, name, column, v, own.mean) > CLEARLY}
                if better:
                    order = sorted(better, key=better.__getitem__, reverse=group.better[column.metric] == "higher")
                    found.append(Beaten(label, column, size, own.mean, tuple((o, better[o]) for o in order)))
    return found


def _lead(group: Group, metric_group: str, column: Column, theirs: float, own: float) -> float:
    """By how much theirs is better."""
    lead = theirs - own if group.better[column.metric] == "higher" else own - theirs
    return lead / max(abs(theirs), abs(own), 1e-300) if metric_group == "cost" else lead


def beaten_table(group: Group) -> Table | None:
    """The cases of `beaten`; None if there are none."""
    rows = tuple(
        (
            case.ours,
            str(case.column),
            f"{case.size:,}",
            number(case.value),
            ", ".join(f"{name} {number(value)}" for name, value in case.baselines),
        )
        for case in beaten(group)
    )
    header = ("memory", "figure", "edits", "it has", "better baselines")
    return Table("Where a baseline is better than our memories", header, rows, words=True) if rows else None


def kernel_table(path: Path) -> Table:
    """The times in a JSON file of pytest-benchmark, in microseconds.

    Raises:
        ValueError: if it is not such a file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
        rows = tuple(
            (
                item["name"],
                *(f"{item['stats'][key] * 1e6:,.1f}" for key in ("median", "mean", "stddev")),
                f"{item['stats']['rounds']:,}",
            )
            for item in found
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the JSON of pytest-benchmark ({error!r})") from None
    return Table("Kernels", ("case", "median µs", "mean µs", "sd µs", "rounds"), rows)


def machine_table(groups: list[Group]) -> Table:
    """Which machines, versions and commits the runs come from."""
    lines: dict[tuple[str, ...], int] = {}
    for run in (run for group in groups for run in group.runs):
        hardware, versions = run.about["hardware"], run.about["versions"]
        key = (
            f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory bytes'] / 2**30:.0f} GiB",
            f"{hardware['threads']}",
            hardware["gpu"] or "none",
            ", ".join(f"{name} {version}" for name, version in versions.items()),
            run.about["commit"] or "unknown",
        )
        lines[key] = lines.get(key, 0) + 1
    header = ("machine", "threads of a run", "GPU", "versions", "commit", "runs")
    return Table("Where it was measured", header, tuple((*key, f"{count}") for key, count in lines.items()), words=True)


def command_table(groups: list[Group]) -> Table:
    """The commands that made the runs."""
    commands = dict.fromkeys(run.about["command"] for group in groups for run in group.runs)
    return Table("Commands", ("command",), tuple((f"`{command}`",) for command in commands if command), words=True)

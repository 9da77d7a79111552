"""What visual runs found, as tables of text."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.folder import read_json, read_lines
from benchmarks.visual.scoring import METRICS
from benchmarks.visual.spec import VisualSpec


def tables(folders: Iterable[Path]) -> str:
    """For each finished run a table in Markdown: a row for each metric, a column for each gap."""
    return "\n".join(_table(folder) for folder in folders if (folder / "scores.jsonl").exists())


def averages(lines: Iterable[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """(metric, gap) -> the mean over records and kinds of question, in the order of the lines."""
    values: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        values.setdefault((line["metric"], str(line["gap"])), []).append(line["value"])
    return {key: statistics.fmean(found) for key, found in values.items()}


def _table(folder: Path) -> str:
    spec = VisualSpec.from_dict(read_json(folder / "run.json")["spec"])
    found = averages(read_lines(folder / "scores.jsonl"))
    there = {gap for _, gap in found}
    gaps = [gap for gap in ("before", *map(str, spec.gaps), "final") if gap in there]
    rows = [
        [name, *(f"{found[name, gap]:.3f}" if (name, gap) in found else "" for gap in gaps)]
        for name in METRICS
        if any((name, gap) in found for gap in gaps)
    ]
    title = f"{spec.method} on {Path(spec.model).name}, {spec.dataset}, {spec.edits} records"
    return "\n".join([title, "", _line([*_heads(gaps)]), _line(["---"] * (1 + len(gaps))), *map(_line, rows), "", ""])


def _heads(gaps: Sequence[str]) -> list[str]:
    return ["metric", *(f"gap {gap}" if gap.isdigit() else gap for gap in gaps)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

"""What visual runs found, as tables of text."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.folder import read_json, read_lines, read_progress
from benchmarks.visual.scoring import METRICS
from benchmarks.visual.spec import VisualSpec


def tables(folders: Iterable[Path]) -> str:
    """For each finished run a table in Markdown: a row for each metric, a column for each gap."""
    return "\n".join(_table(folder) for folder in folders if (folder / "scores.jsonl").exists())


def figures(out: Path) -> list[dict[str, Any]]:
    """The means of all finished runs in a folder: a line for each metric, kind of question, and gap."""
    lines = []
    for folder in sorted(path.parent for path in out.glob("*/scores.jsonl")):
        run, edits = read_json(folder / "run.json"), read_lines(folder / "edits.jsonl")
        if "gaps" not in run["spec"] or not read_progress(folder).finished:
            continue
        spec = VisualSpec.from_dict(run["spec"])
        head = {
            "method": spec.method, "dataset": spec.dataset, "part": spec.part, "options": dict(spec.options),
            "edits": spec.edits, "scored": spec.scored or spec.edits, "command": run["command"],
            "started": run["started"], "seconds per edit": _rounded([edit["seconds"] for edit in edits]),
        }  # fmt: skip
        found = _values(read_lines(folder / "scores.jsonl"))
        lines += [
            {**head, "metric": metric, "kind": kind, "gap": gap, "mean": _rounded(values)}
            for (metric, kind, gap), values in sorted(found.items())
        ]
    return lines


def _rounded(values: Sequence[float]) -> float:
    return round(statistics.fmean(values), 4)


def _values(lines: Iterable[dict[str, Any]]) -> dict[tuple[str, str, str], list[float]]:
    """(metric, kind of question, gap) -> the records' values."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for line in lines:
        values.setdefault((line["metric"], line.get("kind", ""), str(line["gap"])), []).append(line["value"])
    return values


def _table(folder: Path) -> str:
    spec = VisualSpec.from_dict(read_json(folder / "run.json")["spec"])
    found = {key: statistics.fmean(values) for key, values in _values(read_lines(folder / "scores.jsonl")).items()}
    there = {gap for *_, gap in found}
    gaps = [gap for gap in ("before", *map(str, spec.gaps), "final") if gap in there]
    rows = [
        [
            f"{name}, {kind}" if kind else name,
            *(f"{found[name, kind, gap]:.3f}" if (name, kind, gap) in found else "" for gap in gaps),
        ]
        for name in METRICS
        for kind in sorted({kind for metric, kind, _ in found if metric == name})
    ]
    title = f"{spec.method} on {Path(spec.model).name}, {spec.dataset}, {spec.edits} records"
    return "\n".join([title, "", _line([*_heads(gaps)]), _line(["---"] * (1 + len(gaps))), *map(_line, rows), "", ""])


def _heads(gaps: Sequence[str]) -> list[str]:
    return ["metric", *(f"gap {gap}" if gap.isdigit() else gap for gap in gaps)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

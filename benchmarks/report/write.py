"""Reads results, lays them out in sections, and writes both pages."""

import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.folder import write_atomically
from benchmarks.report.pages import Picture, Section, html_page, markdown_page
from benchmarks.report.pictures import pictures
from benchmarks.report.results import Group, read_results
from benchmarks.report.scaling import scale_picture, scale_table
from benchmarks.report.tables import beaten_table, command_table, kernel_table, machine_table, score_tables

TITLE = "Benchmarks of editmem"
HOW_TO_READ = (
    "Figures are means over the records of a run; with several seeds, their mean ± sample standard deviation over "
    "the seeds. The best of each number of edits is in bold. Figures of different groups of metrics are not "
    "comparable, and stand in tables of their own. Methods whose names begin with memoir or wise are our memories; "
    "all others are baselines."
)
NEVER_BEATEN = "No baseline is better than one of our memories by more than 0.01 (of costs: 1 %)."
BEATEN = (
    "Every figure in which a baseline is better than one of our memories by more than 0.01 (of costs: by more than "
    "1 %), the best baseline first. The unedited model is not counted: it keeps everything by doing nothing."
)
PEAK = "Peak memory is the largest resident set of the run's process: interpreter, libraries and host included."


def write_report(results: Path, out: Path, kernels: Path | None = None, scale: Path | None = None) -> list[Path]:
    """Tables and pictures of a folder of results.

    Args:
        results: the folder of runs.
        out: gets report.md, report.html, the pictures as PNG and every figure in figures.jsonl; made if need be.
        kernels: JSON of pytest-benchmark, for a table of the kernels.
        scale: JSON lines of `python -m benchmarks scale`, for a table and a picture.

    Returns:
        The files that were written, the pages first.

    Raises:
        ValueError: if something given cannot be read.
    """
    groups = read_results(results)
    sections = list(_sections(groups, kernels, scale))
    out.mkdir(parents=True, exist_ok=True)
    shown = [item for section in sections for item in section.content if isinstance(item, Picture)]
    for picture in shown:
        _write_bytes(out / picture.name, picture.png)
    write_atomically(out / "report.md", markdown_page(TITLE, sections))
    write_atomically(out / "report.html", html_page(TITLE, sections))
    lines = [json.dumps(line, ensure_ascii=False) for group in groups for line in group.figures()]
    write_atomically(out / "figures.jsonl", "\n".join(lines) + "\n")
    return [out / name for name in ("report.md", "report.html", "figures.jsonl", *(p.name for p in shown))]


def _sections(groups: list[Group], kernels: Path | None, scale: Path | None) -> Iterator[Section]:
    yield Section("How to read this", 2, [HOW_TO_READ])
    for group in groups:
        yield from _group_sections(group)
    if scale is not None:
        yield Section("Many edits", 2, [scale_table(scale), _picture("scale", "Many edits", scale_picture(scale))])
    if kernels is not None:
        yield Section("Kernels", 2, [kernel_table(kernels)])
    yield Section("Where and how it was measured", 2, [machine_table(groups), command_table(groups)])


def _group_sections(group: Group) -> Iterator[Section]:
    yield Section(group.title, 2, _unfinished(group))
    table = beaten_table(group)
    yield Section("Where a baseline is better", 3, [NEVER_BEATEN] if table is None else [BEATEN, table])
    stem = re.sub(r"[^a-z0-9]+", "-", group.title.lower()).strip("-")
    for key, title, figure in pictures(group):
        yield Section(title, 3, [_picture(f"{stem}-{key}", f"{title}: {group.title}", figure)])
    for name in group.columns:
        yield Section(f"Metrics: {name}", 3, list(score_tables(group, name)))
    yield Section("On costs", 3, [PEAK])


def _unfinished(group: Group) -> list[str]:
    slugs = [run.spec.slug for run in group.runs if not run.finished]
    return [f"Not finished, shown as far as they are: {', '.join(slugs)}."] if slugs else []


def _picture(name: str, caption: str, figure: Figure) -> Picture:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return Picture(f"{name}.png", caption, buffer.getvalue())


def _write_bytes(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(content)
    os.replace(temporary, path)

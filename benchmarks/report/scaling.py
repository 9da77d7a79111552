"""The picture and the table of `python -m benchmarks scale`."""

from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.folder import read_lines
from benchmarks.report.style import edits_axis, panels, tidy
from benchmarks.report.tables import Table, number

# What is drawn: title -> (unit, how many of it in the measured one, columns).
PANELS = {
    "Reliability and locality": ("share", 1.0, ("reliability", "locality")),
    "One forward at batch 1": ("milliseconds", 1e3, ("forward seconds", "forward seconds without")),
    "Time of matching": ("milliseconds", 1e3, ("match seconds",)),
    "Saved state": ("bytes per edit", 1.0, ("bytes per edit",)),
    "Time of editing": ("milliseconds per edit", 1e3, ("seconds per edit",)),
}
LINES = (("o", "-", "black"), ("s", "--", "0.45"))


def scale_table(path: Path) -> Table:
    """Every measured column, a row for each size.

    Raises:
        ValueError: if the file holds no lines of `scale`.
    """
    lines = _lines(path)
    columns = [name for _, _, names in PANELS.values() for name in names]
    rows = tuple((f"{line['edits']:,}", *(number(line[name]) for name in columns)) for line in lines)
    return Table("Many edits", ("edits", *columns), rows)


def scale_picture(path: Path) -> Figure:
    """Each measured column against the number of edits."""
    lines = _lines(path)
    sizes = [line["edits"] for line in lines]
    figure, axes = panels(len(PANELS), 3, (4.0, 3.2))
    for panel, (title, (unit, factor, names)) in zip(axes, PANELS.items(), strict=True):
        for name, (marker, dash, colour) in zip(names, LINES, strict=False):
            values = [line[name] * factor for line in lines]
            panel.plot(sizes, values, marker=marker, linestyle=dash, color=colour, label=name.replace(" seconds", ""))
        edits_axis(panel, sizes)
        tidy(panel, title, "edits", unit)
        lowest = min(line[name] for line in lines for name in names)
        panel.set_ylim(*((0.9, 1.005) if unit == "share" and lowest > 0.9 else (0, None)))
        if len(names) > 1:
            panel.legend(frameon=False)
    return figure


def _lines(path: Path) -> list[dict]:
    if not (lines := read_lines(path)) or "match seconds" not in lines[0]:
        raise ValueError(f"{path} holds no lines of `python -m benchmarks scale`")
    return lines

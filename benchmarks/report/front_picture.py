"""The picture of the documentation's first page: `python -m benchmarks.report.front_picture`."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.folder import read_lines, write_atomically

ROOT = Path(__file__).parents[2]
RESULTS, PICTURE = ROOT / "benchmarks" / "results" / "wild.jsonl", ROOT / "docs" / "results.svg"
MODEL, EDITS = "gemma-270m", 100
METHODS = {
    "memoir": "MEMOIR",
    "grace": "GRACE",
    "wise": "WISE",
    "evidence": "fact in the prompt",
    "finetune-breadth": "fine-tuning",
}
METRICS = {
    "wild reliability": "the edited question",
    "wild generality": "rephrased",
    "wild locality": "look-alikes unchanged",
}
COLOURS = {
    "ground": ("#ffffff", "#1e2129"),
    "ink": ("#24292f", "#e2e4e9"),
    "rest": ("#e7e9ee", "#343946"),
    "default": ("#3f51b5", "#8c9eff"),
    "other": ("#8a94a6", "#8b93a5"),
}
"""On a light and on a dark screen; which it is, the picture asks its viewer."""
LIGHT = {name: light for name, (light, _) in COLOURS.items()}


def shares(lines: Sequence[Mapping]) -> dict[str, list[float]]:
    """Of each method by its label the means of all metrics, in their order.

    Raises:
        ValueError: if a mean is missing, or there are several.
    """
    found: dict[str, list[float]] = {}
    for method, label in METHODS.items():
        for metric in METRICS:
            wanted = {"model": MODEL, "edits": EDITS, "method": method, "metric": metric}
            means = [line["mean"] for line in lines if wanted.items() <= line.items()]
            if len(means) != 1:
                raise ValueError(f"expected one mean of {wanted}, got {means}")
            found.setdefault(label, []).append(means[0])
    return found


def in_words(means: Mapping[str, Sequence[float]]) -> str:
    """The figures as text: what those hear who do not see the picture, and what a test compares."""
    heads = ", ".join(METRICS.values())
    return f"{heads}: " + "; ".join(f"{name} {', '.join(f'{m:.2f}' for m in row)}" for name, row in means.items())


def figure(means: Mapping[str, Sequence[float]]) -> Figure:
    """A row of bars for each method, a column for each metric."""
    drawn = Figure(figsize=(7.2, 2.3), layout="constrained", facecolor=LIGHT["ground"])
    panels = drawn.subplots(1, len(METRICS), sharey=True)
    for place, (panel, title) in enumerate(zip(panels, METRICS.values(), strict=True)):
        _bars(panel, title, {name: row[place] for name, row in means.items()})
    panels[0].invert_yaxis()  # the first method on top; the panels share their rows
    return drawn


def _bars(panel: Axes, title: str, values: Mapping[str, float]) -> None:
    names = list(values)
    colours = [LIGHT["default" if name == METHODS["memoir"] else "other"] for name in names]
    panel.barh(names, [1.0] * len(names), height=0.62, color=LIGHT["rest"])
    panel.barh(names, list(values.values()), height=0.62, color=colours)
    for row, value in enumerate(values.values()):
        panel.text(1.04, row, f"{value:.2f}", va="center", fontsize=11, color=LIGHT["ink"])
    panel.set_title(title, fontsize=11.5, loc="left", color=LIGHT["ink"])
    panel.set(xlim=(0, 1.28), facecolor=LIGHT["ground"])
    panel.tick_params(length=0, labelsize=11.5, colors=LIGHT["ink"])
    panel.set_xticks([])
    panel.spines[:].set_visible(False)


def svg(means: Mapping[str, Sequence[float]]) -> str:
    """The picture, in the colours of its viewer's screen."""
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "editmem"}):
        figure(means).savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    for name, colour in LIGHT.items():
        text = text.replace(colour, f"var(--{name}, {colour})")
    light, dark = ("".join(f"--{name}:{pair[side]};" for name, pair in COLOURS.items()) for side in (0, 1))
    style = f"<style>:root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    head, body = text.split("<metadata>", 1)
    return f"{head}<desc>{in_words(means)}</desc>\n {style}\n <metadata>{body}"


if __name__ == "__main__":
    write_atomically(PICTURE, svg(shares(read_lines(RESULTS))))

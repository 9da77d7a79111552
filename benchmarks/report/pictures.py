"""The pictures of a group of runs."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report.results import Column, Group, Run
from benchmarks.report.style import edits_axis, looks, panels, tidy
from benchmarks.report.tables import UNEDITED

CORNERS = ("reliability", "generality", "locality")  # metrics of the triangle, and what quality is the mean of
COSTS = (Column("seconds per edit"), Column("bytes per edit"))
Picture = Callable[[Group], Figure | None]


def triangles(group: Group) -> Figure | None:
    """One triangle for each method: reliability up, generality left, locality right; one outline for each size.

    The numbers at the corners are of the largest size that the method has.
    """
    labels = [label for label in group.labels if any(_corners(group, label, size) for size in group.sizes)]
    if not labels:
        return None
    figure, axes = panels(len(labels), 4, (2.9, 2.9))
    handles: dict[str, Any] = {}
    for panel, label in zip(axes, labels, strict=True):
        _frame(panel, label)
        for size, look in zip(group.sizes, _size_looks(len(group.sizes)), strict=True):
            if (values := _corners(group, label, size)) is not None:
                handles[f"{size:,} edits"] = panel.plot(*_outline(values), **look)[0]
        shown = [v for size in group.sizes if (v := _corners(group, label, size)) is not None]
        for name, value, angle in zip(CORNERS, shown[-1], _ANGLES, strict=True):
            place = {"ha": "center", "va": "bottom" if angle == _ANGLES[0] else "top", "fontsize": 8.5}
            panel.text(1.1 * math.cos(angle), 1.1 * math.sin(angle), f"{name}\n{value:.2f}", **place)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


_ANGLES = tuple(math.radians(degrees) for degrees in (90, 210, 330))


def _corners(group: Group, label: str, size: int) -> tuple[float, ...] | None:
    values = [group.overall(label, size, metric) for metric in CORNERS]
    return None if None in values else tuple(value for value in values if value is not None)


def _outline(values: Sequence[float]) -> tuple[list[float], list[float]]:
    points = [(v * math.cos(a), v * math.sin(a)) for v, a in zip(values, _ANGLES, strict=True)]
    return tuple(map(list, zip(*points, points[0], strict=True)))  # type: ignore[return-value]


def _frame(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10.5, fontweight="bold", pad=8)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set(xlim=(-1.35, 1.35), ylim=(-1.0, 1.5))
    for share in (0.25, 0.5, 0.75, 1.0):
        axes.plot(*_outline([share] * 3), color="0.55" if share == 1 else "0.85", linewidth=0.8)
    for angle in _ANGLES:
        axes.plot([0, math.cos(angle)], [0, math.sin(angle)], color="0.85", linewidth=0.8)


def _size_looks(count: int) -> list[dict[str, Any]]:
    """From a thin, light and dotted line for the smallest size to a thick, black and full one for the largest."""
    dashes, markers = ("-", "--", ":", "-.", (0, (1, 3))), "os^D*"
    looks_of = []
    for place in range(count):
        grey = 0.55 * place / max(1, count - 1)
        style = {"linestyle": dashes[place % 5], "marker": markers[place % 5], "markersize": 4}
        looks_of.append({"color": f"{grey:.2f}", "linewidth": 2.2 - place / count, **style})
    return looks_of[::-1]


def curves(group: Group) -> Figure | None:
    """Score against number of edits, a panel for each column of the corner metrics; bars are ± one deviation."""
    columns = [column for those in group.columns.values() for column in those if column.metric in CORNERS]
    return _lines(group, columns, zero=False)


def forgetting(group: Group) -> Figure | None:
    """How much of the score right after an edit is gone at the end, against the number of edits."""
    columns = [column for those in group.columns.values() for column in those if column.metric == "forgetting"]
    return _lines(group, columns, zero=True)


def forgetting_by_hundred(group: Group) -> Figure | None:
    """How much is gone of the first hundred edits, the second, and so on, at the end of the longest runs."""
    longest = {run.label: run.lost for run in group.runs if run.spec.sizes[-1] == group.sizes[-1] and len(run.lost) > 1}
    if not longest:
        return None
    figure, (panel,) = panels(1, 1, (8.0, 4.6))
    styles = looks(group.labels)
    for label in (label for label in group.labels if label in longest):
        panel.plot(range(100, 100 * len(longest[label]) + 1, 100), longest[label], **styles[label].line(), label=label)
    panel.axhline(0, color="0.4", linewidth=0.8)
    tidy(panel, "", "edits, in hundreds", "lost share of each hundred")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right center", frameon=False, handlelength=4)
    return figure


def _lines(group: Group, columns: Sequence[Column], zero: bool) -> Figure | None:
    if not columns:
        return None
    figure, axes = panels(len(columns), 3, (4.6, 4.0) if len(columns) > 1 else (8.0, 4.6))
    handles: dict[str, Any] = {}
    for panel, column in zip(axes, columns, strict=True):
        for place, (label, look) in enumerate(looks(group.labels).items()):
            found = {size: f for size in group.sizes if (f := group.figure(label, size, column)) is not None}
            if found:
                shift = 1.015 ** (place - len(group.labels) / 2)  # lines that coincide stay visible
                xs, ys = [size * shift for size in found], [f.mean for f in found.values()]
                bars = [f.sd or 0.0 for f in found.values()]
                handles[label] = panel.errorbar(xs, ys, bars, elinewidth=0.8, capsize=2, **look.line())
        edits_axis(panel, group.sizes)
        tidy(panel, str(column), "edits", "score" if not zero else "lost share")
        if zero:
            panel.axhline(0, color="0.4", linewidth=0.8)
        else:
            panel.set_ylim(-0.04, 1.04)
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False, handlelength=4)
    return figure


FAR = 4  # times the threshold; scores beyond are shown there


def match_histograms(group: Group) -> Figure | None:
    """How well edits, rephrasings and unrelated prompts match, and the threshold; the first seed of each method."""
    runs: dict[str, Run] = {}
    for run in sorted(group.runs, key=lambda run: run.spec.seed):
        if run.matches:
            runs.setdefault(run.label, run)
    if not runs:
        return None
    figure, axes = panels(len(runs), 3, (4.6, 3.4))
    for panel, (label, run) in zip(axes, sorted(runs.items()), strict=True):
        _histogram(panel, label, run.matches or {})
    return figure


def _histogram(axes: Axes, label: str, matches: Mapping[str, Any]) -> None:
    top = FAR * matches["threshold"]
    sorts = {
        name: [min(score, top) for score in matches[name]]
        for name in ("edits", "rephrasings", "unrelated")
        if matches.get(name)
    }
    every = [score for scores in sorts.values() for score in scores] + [matches["threshold"]]
    low, high = min(every), max(every)
    width = (high - low or 1.0) / 30
    bins = [low + place * width for place in range(31)]
    looks_of = {"edits": ("0.25", ""), "rephrasings": ("0.75", "///"), "unrelated": ("white", "...")}
    for name, scores in sorts.items():
        face, hatch = looks_of[name]
        shares = [1 / len(scores)] * len(scores)
        told = f"{name} ({len(scores)})"
        axes.hist(scores, bins, weights=shares, label=told, facecolor=face, hatch=hatch, edgecolor="black", alpha=0.7)
    axes.axvline(matches["threshold"], color="black", linestyle="--", linewidth=1.6, label="threshold")
    capped = high == top
    tidy(axes, label, f"match score ({top:.2g}: that and above)" if capped else "match score", "share of prompts")
    axes.legend(frameon=False, fontsize=8.5)


def cost_against_quality(group: Group) -> Figure | None:
    """Costs against the mean of reliability, generality and locality, at the largest size that a method has."""
    methods = [label for label in group.labels if label != UNEDITED]
    reached = {label: found for label in methods if (found := _quality(group, label)) is not None}
    columns = [c for c in COSTS if any(group.figure(label, size, c) for label, (size, _) in reached.items())]
    if not columns:
        return None
    figure, axes = panels(len(columns), 2, (5.6, 4.2))
    for panel, column in zip(axes, columns, strict=True):
        points = {m: (f.mean, q) for m, (s, q) in reached.items() if (f := group.figure(m, s, column)) and f.mean > 0}
        styles = looks(group.labels)
        for label, (cost, quality) in points.items():
            panel.plot(cost, quality, **styles[label].line() | {"linestyle": "none", "markersize": 9}, label=label)
        panel.set_xscale("log")
        panel.set_ylim(-0.04, 1.04)
        tidy(panel, "", column.metric, "mean of reliability, generality, locality")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False)
    return figure


def _quality(group: Group, label: str) -> tuple[int, float] | None:
    for size in reversed(group.sizes):
        if (values := _corners(group, label, size)) is not None:
            return size, statistics.fmean(values)
    return None


PICTURES: dict[str, tuple[str, Picture]] = {
    "triangles": ("Reliability, generality and locality (numbers: at the most edits)", triangles),
    "curves": ("Score against number of edits", curves),
    "forgetting": ("Forgetting", forgetting),
    "hundreds": ("Forgetting of each hundred edits", forgetting_by_hundred),
    "matches": ("Match scores", match_histograms),
    "cost": ("Cost against quality", cost_against_quality),
}


def pictures(group: Group) -> Iterator[tuple[str, str, Figure]]:
    """(key, title, figure) of each picture that the runs have figures for."""
    for key, (title, draw) in PICTURES.items():
        if (figure := draw(group)) is not None:
            yield key, title, figure

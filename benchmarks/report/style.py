"""How the pictures look: told apart by marker and line style, so that they read in black and white."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report.results import is_ours

MARKERS = "osD^vP*X<>hdp8"
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)))
COLOURS = ("#1b4f72", "#b9770e", "#7b241c", "#1e8449", "#6c3483", "#5d6d7e", "#2e86c1", "#a04000", "#117864", "#7d6608")


@dataclass(frozen=True)
class Look:
    """How one method is drawn; our memories with filled markers and full lines, baselines with hollow ones."""

    marker: str
    dash: Any
    colour: str
    filled: bool

    def line(self) -> dict[str, Any]:
        """Keywords of `Axes.plot`."""
        face = self.colour if self.filled else "white"
        return {
            "marker": self.marker, "linestyle": self.dash, "color": self.colour, "markerfacecolor": face,
            "markersize": 7, "linewidth": 2.0 if self.filled else 1.2,
        }  # fmt: skip


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """A look for each method, the same in all pictures of a group."""
    colours, dashes = itertools.cycle(COLOURS), itertools.cycle(DASHES[1:])
    return {
        label: Look(marker, "-" if is_ours(label) else next(dashes), next(colours), is_ours(label))
        for label, marker in zip(labels, itertools.cycle(MARKERS), strict=False)
    }


def panels(count: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of at least `count` panels, `size` inches each; panels beyond `count` are left out."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def tidy(axes: Axes, title: str, x: str, y: str) -> None:
    """Title, labels, a faint grid and no frame at top and right."""
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, color="0.88", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def edits_axis(axes: Axes, sizes: Sequence[int]) -> None:
    """A logarithmic axis of numbers of edits with a tick at each."""
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()

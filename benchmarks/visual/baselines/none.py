"""No edit at all: what the host says anyway, and the floor of every score."""

from pathlib import Path
from typing import Any

from benchmarks.baselines.options import check
from benchmarks.visual.records import Change
from benchmarks.visual.session import VisualSession


class VisualNone(VisualSession):
    """The host as it is. It has no options."""

    name = "none"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        check(self.name, self.options, {})

    def write(self, change: Change) -> bool | None:
        return False

    def save(self, folder: Path) -> None:
        """There is nothing to keep."""

    def restore(self, folder: Path) -> None:
        """There is nothing to take up."""

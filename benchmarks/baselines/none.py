"""No edit at all: what the host says anyway, and the floor of every score."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.baselines.options import check
from benchmarks.records import Record
from benchmarks.session import Session


class NoEdit(Session):
    """The host as it is. It has no options."""

    name = "none"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        check(self.name, self.options, {})

    def write(self, records: Sequence[Record]) -> list[bool | None]:
        return [False] * len(records)

    def save(self, folder: Path) -> None:
        """There is nothing to keep."""

    def restore(self, folder: Path) -> None:
        """There is nothing to take up."""

    def off(self) -> AbstractContextManager[None]:
        return nullcontext()

    def bytes(self) -> int:
        return 0

"""What a data set is: where its parts lie, and how a row of its files becomes records."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from benchmarks.datasets.rows import Row, hub_rows, read_rows
from benchmarks.records import Record

PARTS = ("calibration", "test")
HUB = "hub:"


class Files(NamedTuple):
    """The names that the file of each part goes by, the usual one first."""

    calibration: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, part: str) -> tuple[str, ...]:
        return self.test if part == "test" else self.calibration


class Dataset(ABC):
    """Records in two parts that never overlap."""

    @abstractmethod
    def load(self, data: str | Path | None, part: str) -> list[Record]:
        """The records of one part, "calibration" or "test"."""


class FileDataset(Dataset):
    """A data set that is read from files in their original format.

    Attributes:
        files: what each part is read from.
        calibration: where one file holds both parts, the `position` from which on a row belongs to the test part; None
            where the parts have files of their own.
    """

    files: Files
    calibration: int | None = None

    def load(self, data: str | Path | None, part: str) -> list[Record]:
        """The records of one part.

        Args:
            data: a folder, in which the part's file is looked for at any depth; a file; or "hub:owner/name", of which
                the split "train" is the calibration part and "test" the test part (where one file holds both, that is
                "train"), or "hub:owner/name/FILE".
            part: "calibration" or "test".

        Raises:
            ValueError: if no data are given, or a file is of the other part.
            FileNotFoundError: if the data are not there.
            RecordError: if a record cannot be read, naming file, record and field.
        """
        rows = self._rows(data, part)
        mine = [self._belongs(row, part) for row in rows]
        return self.records(
            [row for row, own in zip(rows, mine, strict=True) if own],
            [row for row, own in zip(rows, mine, strict=True) if not own],
        )

    def position(self, row: Row) -> int:
        """What `calibration` is compared with: the place of the row in its file."""
        return row.number

    @abstractmethod
    def records(self, rows: Sequence[Row], others: Sequence[Row]) -> list[Record]:
        """The records that rows of one part make; the `others` are of the other part, in the same file."""

    def _belongs(self, row: Row, part: str) -> bool:
        return self.calibration is None or (self.position(row) < self.calibration) == (part == "calibration")

    def _rows(self, data: str | Path | None, part: str) -> list[Row]:
        if data is None:
            raise ValueError(f"this data set is read from files; give a folder with {self.files.of(part)[0]}")
        if str(data).startswith(HUB):
            return self._hub_rows(str(data).removeprefix(HUB), part)
        return read_rows(self._path(Path(data), part))

    def _hub_rows(self, name: str, part: str) -> list[Row]:
        if name.count("/") > 1:
            self._check_name(name, part)
        split = "test" if self.calibration is None and part == "test" else "train"
        return hub_rows(name, split)

    def _path(self, data: Path, part: str) -> Path:
        if data.is_file():
            self._check_name(data, part)
            return data
        for name in self.files.of(part):
            if found := sorted(data.rglob(name), key=lambda path: (len(path.parts), path)):
                return found[0]
        raise FileNotFoundError(f"no {' or '.join(self.files.of(part))} in {data}; the {part} part is read from it")

    def _check_name(self, data: str | Path, part: str) -> None:
        """A file of unknown name counts as a test part, so that no file can be both."""
        name = PurePath(data).name
        own = "calibration" if name in self.files.calibration else "test"
        if self.calibration is None and own != part:
            raise ValueError(f"{data} counts as the {own} part; the {part} part is {' or '.join(self.files.of(part))}")

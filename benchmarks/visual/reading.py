"""What the file readers share: finding the file of a part, and the pictures that its records name."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.datasets.rows import Row, read_rows
from benchmarks.visual.pictures import FilePicture, NamedPicture, Picture


def rows_of(data: str | Path | None, name: str) -> list[Row]:
    """The rows of a JSON file.

    Args:
        data: the file, or a folder in which it is looked for at any depth.
        name: what the file is called.

    Raises:
        ValueError: if no data are given, or a file of another name.
        FileNotFoundError: if it is not there.
        RecordError: if it holds anything but a list of objects.
    """
    if data is None:
        raise ValueError(f"this data set is read from files; give a folder with {name}")
    path = Path(data)
    found = [path] if path.is_file() else sorted(path.rglob(name), key=lambda p: (len(p.parts), p))
    if not found:
        raise FileNotFoundError(f"no {name} in {path}")
    if found[0].name != name:
        raise ValueError(f"{found[0]} is not {name}, which this part of the data set is read from")
    return read_rows(found[0])


def picture_of(row: Row, field: str, folder: Path | None) -> Picture:
    """The picture whose path, relative to a folder, stands in a field; without a folder it is drawn from the path.

    Raises:
        RecordError: if the field is missing or no text, or the folder does not have the picture.
    """
    name = row.text(field)
    if folder is None:
        return NamedPicture(name)
    path = folder / name
    if not path.is_file():
        raise row.error(field, f"names a picture that is not there: {path}")
    return FilePicture(path)


def joined(parts: Sequence[str], not_these: Sequence[str] = ()) -> tuple[str, ...]:
    """Accepted answers where a data set lists several: all of them joined by spaces first, as MemEIC trains and
    scores them, then each by itself, but for those that were right before the edit (unless that is all of them)."""
    new = [part for part in parts if part not in not_these] or list(parts)
    return tuple(dict.fromkeys([" ".join(parts), *new]))

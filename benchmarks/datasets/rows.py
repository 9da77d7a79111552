"""Rows of data files, and fields that are checked as they are read."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.records import RecordError


@dataclass(frozen=True)
class Row:
    """One object of a data file.

    Attributes:
        fields: what stands in it; a field that is null counts as missing, for that is how columns are filled up.
        where: file and record or line, for messages.
        number: 0 for the first object of the file.
    """

    fields: Mapping[str, Any]
    where: str
    number: int = 0

    def __contains__(self, name: str) -> bool:
        return self.fields.get(name) is not None

    def text(self, name: str) -> str:
        """A field that must be a text and not blank."""
        value = self._get(name)
        if not isinstance(value, str) or not value.strip():
            raise self.error(name, f"must be a text that is not blank, not {value!r}")
        return value

    def aliases(self, name: str) -> tuple[str, ...]:
        """Accepted answers in any of the forms in use (text, list of texts, list of lists), the main one first."""
        try:
            return tuple(dict.fromkeys(_leaves(self._get(name))))
        except TypeError as error:
            raise self.error(name, f"must be a text or nested lists of texts; {error}") from None

    def row(self, name: str) -> "Row":
        """A field that is an object itself."""
        return self._inner(self._get(name), name)

    def rows(self, name: str) -> list["Row"]:
        """A field that is a list of objects; none if it is missing."""
        value = self._list(name) if name in self else []
        return [self._inner(item, f"{name}[{i}]") for i, item in enumerate(value)]

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that is a list of texts; none if it is missing."""
        value = self._list(name) if name in self else []
        if any(not isinstance(item, str) or not item.strip() for item in value):
            raise self.error(name, f"must hold texts that are not blank, not {value!r}")
        return tuple(value)

    def error(self, name: str, problem: str) -> RecordError:
        return RecordError(f"{self.where}: field {name!r} {problem}")

    def _get(self, name: str) -> Any:
        if name not in self:
            raise RecordError(f"{self.where}: no field {name!r}; there are {', '.join(self.fields) or 'none'}")
        return self.fields[name]

    def _list(self, name: str) -> list:
        value = self._get(name)
        if not isinstance(value, list):
            raise self.error(name, f"must be a list, not {value!r}")
        return value

    def _inner(self, value: Any, name: str) -> "Row":
        if not isinstance(value, dict):
            raise self.error(name, f"must be an object, not {value!r}")
        return Row(value, f"{self.where}, {name}", self.number)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, (str, int, float)):
        if text := str(value).strip():
            yield text
    else:
        raise TypeError(f"{value!r} is neither")


def read_rows(path: Path) -> list[Row]:
    """The objects of a .json file that holds a list, or of a .jsonl file.

    Raises:
        RecordError: if it is no JSON, or holds anything else.
    """
    text = path.read_text(encoding="utf-8")
    return _lines(text, path.name) if path.suffix == ".jsonl" else _list(text, path.name)


def _list(text: str, name: str) -> list[Row]:
    content = _parse(text, name, 1)
    if not isinstance(content, list):
        raise RecordError(f"{name}: must hold a list of objects, not {type(content).__name__}")
    return [_row(item, f"{name}, record {i}", i) for i, item in enumerate(content)]


def _lines(text: str, name: str) -> list[Row]:
    lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [_row(_parse(line, name, i), f"{name}, line {i}", n) for n, (i, line) in enumerate(lines)]


def _parse(text: str, name: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise RecordError(f"{name}, line {line + error.lineno - 1}: not JSON: {error.msg}") from None


def _row(item: Any, where: str, number: int) -> Row:
    if not isinstance(item, dict):
        raise RecordError(f"{where}: must be an object, not {item!r}")
    return Row(item, where, number)


def hub_rows(name: str, split: str) -> list[Row]:
    """The rows of a data set on the Hugging Face Hub.

    Args:
        name: "owner/name", of which the split is read, or "owner/name/FILE" for one file of it.
        split: such as "test".

    Raises:
        ModuleNotFoundError: if the `datasets` library is missing.
    """
    import datasets

    owner, repository, *file = name.split("/", 2)
    source = f"{owner}/{repository}"
    if file:
        table = datasets.load_dataset(source, data_files=file[0], split="train")
    else:
        table = datasets.load_dataset(source, split=split)
    return [_row(dict(item), f"hub:{name}, record {i}", i) for i, item in enumerate(table)]

"""Read records from the files that users have: JSON, JSON lines, and tables as spreadsheets save them."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from editmem.errors import InvalidEditError

Records = Iterator[tuple[str, Any]]

REQUIRED = ("prompt", "target")
DELIMITERS = ",;\t"
_ENCODINGS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
"""Marks that begin a file, and what it is in then; without one it is in UTF-8."""
_TOLD = re.compile(r"sep=([^\r\n])?[ ]*(?:\r\n|\r|\n)", re.IGNORECASE)
"""A first line in which spreadsheets say what is between the cells."""


def records(path: Path) -> Records:
    """What a file holds, record by record, each with where it stands.

    Args:
        path: of a file of one of `SUFFIXES`, in UTF-8, or in UTF-16 with its mark. Of a table, the first line names
            the columns, and says by that what is between the cells: a comma, a semicolon or a tab.

    Raises:
        InvalidEditError: naming the file, and the line where something is wrong.
    """
    if not path.is_file():
        raise InvalidEditError(f"no such file: {path}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidEditError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    for where, record in reader(_text(path), path):
        yield f"{path}, {where}", record


def _text(path: Path) -> str:
    data = path.read_bytes()
    encoding = next((encoding for mark, encoding in _ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidEditError(
            f"{path}, line {line}: not {encoding.upper()} text ({error.reason}, byte {error.start}); save the file as "
            "UTF-8 (spreadsheets: 'CSV UTF-8')"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InvalidEditError(
            f"{path}, line {line}: a NUL character, so that it is no text, or is UTF-16 without its mark; save the "
            "file as UTF-8"
        )
    return text


def _parsed(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidEditError(f"{path}, line {line + error.lineno - 1}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nested as deep
        raise InvalidEditError(f"{path}, line {line}: JSON that cannot be read: {error}") from None


def _json(text: str, path: Path) -> Records:
    found = _parsed(text, path, 1)
    if not isinstance(found, list):
        raise InvalidEditError(f"{path}: expected a JSON list of edits, got {type(found).__name__}")
    for number, record in enumerate(found):
        yield f"record {number}", record


def _json_lines(text: str, path: Path) -> Records:
    for number, line in enumerate(text.split("\n"), 1):  # other line breaks may stand inside JSON's strings
        if line.strip():
            yield f"line {number}", _parsed(line, path, number)


def _table(text: str, path: Path) -> Records:
    """Rows by the names of their columns; empty cells are left out."""
    told = _TOLD.match(text)
    above, text = (1, text[told.end() :]) if told else (0, text)
    first = next((line for line in re.findall(r"[^\r\n]+", text) if line.strip(f" {DELIMITERS}")), "")
    found = (way for way in (told[1] or "\t" if told else DELIMITERS) if set(REQUIRED) <= set(_names(first, way)))
    if (delimiter := next(found, None)) is None:
        raise InvalidEditError(
            f"{path}, line {above + 1}: expected the names of the columns, {' and '.join(REQUIRED)} among them, "
            f"got {first[:80]!r}"
        )
    names = _names(first, delimiter)
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise InvalidEditError(f"{path}, line {above + 1}: two columns have the name {twice[0]!r}")
    lines = _lines(text, delimiter, above, path)
    next(lines)
    for number, cells in lines:
        yield f"line {number}", _row(names, cells, f"{path}, line {number}")


def _names(line: str, delimiter: str) -> list[str]:
    return [cell.strip(' "').lower() for cell in line.split(delimiter)]


def _lines(text: str, delimiter: str, above: int, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that have anything in them, each with the number of its first line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = above + 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield start, cells
            start = above + reader.line_num + 1
    except csv.Error as error:
        if "field limit" in str(error):
            message = f"a cell of more than {csv.field_size_limit()} characters, or a quotation mark that is not closed"
        else:
            message = f"a stray quotation mark ({error}): put the cell in quotation marks, and double those inside it"
        raise InvalidEditError(f"{path}, line {start}: {message}; or give the edits as .jsonl") from None


def _row(names: list[str], cells: list[str], where: str) -> dict[str, Any]:
    spare = len(cells) - len(names)
    if spare < 0 or any(cell.strip() for cell in cells[len(names) :]):
        raise InvalidEditError(f"{where}: expected {len(names)} columns, got {len(cells)}")
    row = {name: cell for name, cell in zip(names, cells, strict=False) if cell.strip()}
    if "" in row:
        raise InvalidEditError(f"{where}: {row['']!r} stands in a column without a name")
    return row


_READERS: dict[str, Callable[[str, Path], Records]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _table,
    ".tsv": _table,
    ".txt": _table,
}
SUFFIXES = tuple(_READERS)
TABLES = tuple(suffix for suffix, reader in _READERS.items() if reader is _table)

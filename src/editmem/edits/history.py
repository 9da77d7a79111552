"""The append-only history of a memory: what was edited, superseded, forgotten and undone, in order."""

import dataclasses
import itertools
import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editmem.edits.edit import EditRecord
from editmem.errors import LedgerError

RECORDED = ("edited", "confirmed", "rejected")
KINDS = (*RECORDED, "superseded", "forgotten", "undone")
TABLE = "CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY, event TEXT NOT NULL)"


@dataclass(frozen=True)
class Event:
    """One entry of the history.

    Attributes:
        number: 0 for the first event.
        kind: "edited"; "superseded" (by a later edit of the same prompt); "confirmed" and "rejected" (a question that
            the edit is for, or not for); "forgotten"; "undone".
        ids: the edits that it concerns. Of "undone": the edits that became active or inactive by it.
        time: seconds since 1970, UTC.
        record: of "edited", what came of it; of "confirmed" and "rejected", the edit as it is from then on.
        undoes: of "undone", the numbers of the events that it took back.

    Examples:
        >>> import editmem
        >>> model, tokenizer = editmem.tiny()
        >>> editor = editmem.wrap(model, tokenizer=tokenizer)
        >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
        >>> editor.history[0].record.edit.target
        'Sydney'
    """

    number: int
    kind: str
    ids: tuple[str, ...]
    time: float
    record: EditRecord | None = None
    undoes: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON can hold them."""
        data: dict[str, Any] = {"number": self.number, "kind": self.kind, "ids": list(self.ids), "time": self.time}
        if self.record is not None:
            data["record"] = self.record.to_dict()
        if self.undoes:
            data["undoes"] = list(self.undoes)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Event":
        """The inverse of `to_dict`.

        Raises:
            ValueError, KeyError, TypeError: if it is not an event.
        """
        if data["kind"] not in KINDS:
            raise ValueError(f"unknown kind of event {data['kind']!r}")
        record = EditRecord.from_dict(data["record"]) if "record" in data else None
        undoes = tuple(data.get("undoes", ()))
        return cls(int(data["number"]), data["kind"], tuple(data["ids"]), float(data["time"]), record, undoes)


class Ledger:
    """The history; in memory, and in an SQLite file if there is one: a file that holds a history is gone on with.

    Args:
        path: of the SQLite file, which is made where there is none; None to keep the history in memory only.

    Raises:
        LedgerError: if the file is damaged, or is not a ledger.

    Examples:
        >>> import editmem
        >>> model, tokenizer = editmem.tiny()
        >>> editor = editmem.wrap(model, tokenizer=tokenizer)
        >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
        >>> [(event.kind, event.ids) for event in editor.history]
        [('edited', ('au',))]
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._empty()
        self._file = None if path is None else _File(Path(path))
        if self._file is not None:
            self.take_over(self._file.read())

    def _empty(self) -> None:
        self._events: list[Event] = []
        self._records: dict[str, EditRecord] = {}  # the latest of each id
        self._about: dict[str, list[int]] = {}  # numbers of the events that concern an id, but "undone"
        self._taken_back: set[int] = set()
        self._active: dict[str, EditRecord] = {}
        self._in_order = True  # whether that is in order of writing

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(tuple(self._events))

    def __getitem__(self, number: int) -> Event:
        return self._events[number]

    def __deepcopy__(self, memo: dict) -> "Ledger":
        copy = Ledger()
        copy.take_over(self._events)
        return copy

    def append(
        self, kind: str, ids: tuple[str, ...], record: EditRecord | None = None, undoes: tuple[int, ...] = ()
    ) -> Event:
        """Add an event; the file has it after `write`."""
        event = Event(len(self), kind, ids, time.time(), record, undoes)
        self.take_over([event])
        return event

    def amend(self, number: int, record: EditRecord) -> None:
        """Say more of an edit in an event that the file does not have yet."""
        before = self._events[number].record
        self._events[number] = dataclasses.replace(self._events[number], record=record)
        for known in (self._records, self._active):
            if known.get(record.id) is before:
                known[record.id] = record

    def take_over(self, events: Sequence[Event]) -> None:
        """Add events that exist already, such as those of a saved memory."""
        for event in events:
            self._events.append(event)
            if event.kind == "undone":
                self._taken_back.update(event.undoes)
                self._settle(edit for number in event.undoes for edit in self._events[number].ids)
                continue
            for edit in event.ids:
                self._about.setdefault(edit, []).append(event.number)
                self._active.pop(edit, None)
            if event.record is not None:
                self._records[event.record.id] = self._active[event.record.id] = event.record

    def _settle(self, ids: Iterable[str]) -> None:
        """Have some ids be as active as the events that stand leave them."""
        for edit, record in self.without((), ids).items():
            self._active.pop(edit, None)
            if record is not None:
                self._active[edit], self._in_order = record, False

    def without(self, numbers: Collection[int], ids: Iterable[str] | None = None) -> dict[str, EditRecord | None]:
        """What taking back the events of some `numbers` would make of the edits that they concern, or of `ids`.

        Returns:
            the record of each, None of one that would not be active.
        """
        found: dict[str, EditRecord | None] = {}
        for edit in (edit for number in numbers for edit in self._events[number].ids) if ids is None else ids:
            standing = (n for n in reversed(self._about[edit]) if n not in self._taken_back and n not in numbers)
            last = next(standing, None)
            found[edit] = None if last is None else self._events[last].record
        return found

    def join(self, events: Sequence[Event]) -> None:
        """Take over the events of a saved memory, which may be older or newer than this ledger.

        Raises:
            LedgerError: if neither history is the beginning of the other.
        """
        for own, other in zip(self._events, events, strict=False):
            if _line(own) != _line(other):
                raise LedgerError(
                    f"the ledger and the saved memory are of different histories: event {own.number} differs. Give the "
                    "ledger that was used with this memory, or a new file"
                )
        self.take_over(events[len(self) :])

    def write(self) -> None:
        """Bring the file up to date, all of it or nothing.

        Raises:
            LedgerError: if that cannot be done, as where the disk is full.
        """
        if self._file is not None:
            self._file.write(self._events)

    def back_to(self, count: int) -> None:
        """Only the first `count` events have happened."""
        if len(self._events) > count:
            kept = self._events[:count]
            self._empty()
            self.take_over(kept)
        if self._file is not None:
            self._file.cut(count)

    def close(self) -> None:
        """Let go of the file; the history stays in memory."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def edits(self, upto: int | None = None) -> dict[str, EditRecord]:
        """What is active after the first `upto` events (all by default): records by id, in order of writing."""
        if upto is not None:
            before = Ledger()
            before.take_over(self._events[:upto])
            return before.edits()
        if not self._in_order:
            self._active = {edit: self._active[edit] for edit in sorted(self._active, key=self._written)}
            self._in_order = True
        return dict(self._active)

    def _written(self, edit_id: str) -> int:
        """The number of the last event that stands of an active edit."""
        return next(number for number in reversed(self._about[edit_id]) if number not in self._taken_back)

    def last_standing(self, count: int) -> list[Event]:
        """The last `count` events that can still be undone by themselves, or all if they are fewer; newest first."""
        standing = (e for e in reversed(self._events) if e.kind not in ("undone", "superseded"))
        return list(itertools.islice((e for e in standing if e.number not in self._taken_back), count))

    def record(self, edit_id: str) -> EditRecord:
        """Of an active edit its record; of another the latest."""
        return self._active.get(edit_id) or self._records[edit_id]


class _File:
    """Events in an SQLite file.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0  # of the events that it has
        self._new: list[tuple[int, str]] = []  # what was written last
        self._database = sqlite3.connect(":memory:")
        try:
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            tables = self._tables()
            if tables and "events" not in tables:
                self._database.close()
                raise LedgerError(
                    f"{path} is no ledger: it is a database with the tables {sorted(tables)}; give another file"
                )
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute(TABLE)
        except sqlite3.Error as error:
            self._database.close()
            raise LedgerError(
                f"{path} cannot be opened as a ledger: {error}. A ledger is an SQLite file that editmem.wrap(model, "
                "ledger=path) has made; give that one, or the path of a new file"
            ) from error

    def _tables(self) -> set[str]:
        return {row[0] for row in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def read(self) -> list[Event]:
        """All events in it."""
        try:
            if (found := self._database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise ValueError(found)
            rows = self._database.execute("SELECT number, event FROM events ORDER BY number").fetchall()
            events = [parse_event(text) for _, text in rows]
            check_history(events)
            if [number for number, _ in rows] != list(range(len(rows))):
                raise ValueError("its rows are not numbered from 0 on")
        except (sqlite3.Error, ValueError, KeyError, TypeError, AttributeError) as error:
            self._database.close()
            raise LedgerError(f"the ledger {self.path} is damaged: {error!r}; bring it back from a copy") from error
        self._count = len(events)
        return events

    def write(self, events: Sequence[Event]) -> None:
        """Have these events, of which it has the first already, in one transaction."""
        new = events[self._count :]
        if not new:
            return
        self._new = [(event.number, _line(event)) for event in new]
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT INTO events VALUES (?, ?)", self._new)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            taken = isinstance(error, sqlite3.IntegrityError)
            reason = "another editor has written to it meanwhile; wrap the model anew" if taken else str(error)
            raise LedgerError(f"the ledger {self.path} cannot be written: {reason}. Nothing was changed") from error
        self._count = len(events)

    def _roll_back(self) -> None:
        self._new = []
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def cut(self, count: int) -> None:
        """Take back what `write` did, or was interrupted in, beyond the first `count` events."""
        if self._database.in_transaction:
            self._roll_back()
        if written := [row for row in self._new if row[0] >= count]:
            self._database.executemany("DELETE FROM events WHERE number = ? AND event = ?", written)
        self._new, self._count = [], min(self._count, count)

    def close(self) -> None:
        self._database.close()


def _line(event: Event) -> str:
    return json.dumps(event.to_dict(), ensure_ascii=False)


def parse_event(line: str) -> Event:
    """An event from one line of JSON."""
    return Event.from_dict(json.loads(line))


def check_history(events: Sequence[Event]) -> None:
    """Refuse events that are no history.

    Raises:
        ValueError: naming the first event that does not fit.
    """
    for number, event in enumerate(events):
        if event.number != number:
            raise ValueError(f"event {number} has the number {event.number}")
        if (event.kind in RECORDED) != (event.record is not None):
            raise ValueError(
                f"event {number} is {event.kind!r}, and has {'no' if event.record is None else 'a'} record"
            )
        if event.record is not None and event.ids != (event.record.id,):
            raise ValueError(f"event {number} is about {event.ids}, its record about {event.record.id!r}")
        if any(not 0 <= undone < number for undone in event.undoes):
            raise ValueError(f"event {number} takes back {event.undoes}, which have not happened before it")

"""The append-only history of a memory: what was edited, superseded, forgotten and undone, in order."""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editmem.edit import EditRecord

KINDS = ("edited", "superseded", "forgotten", "undone")


@dataclass(frozen=True)
class Event:
    """One entry of the history.

    Attributes:
        number: 0 for the first event.
        kind: "edited"; "superseded" (by a later edit of the same prompt); "forgotten"; "undone".
        ids: the edits that it concerns. Of "undone": the edits that became active or inactive by it.
        time: seconds since 1970, UTC.
        record: of "edited", what came of it.
        undoes: of "undone", the numbers of the events that it took back.
    """

    number: int
    kind: str
    ids: tuple[str, ...]
    time: float
    record: EditRecord | None = None
    undoes: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
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
    """The history; in memory, or in an SQLite file that is written with every event.

    Args:
        path: of the SQLite file, which must be new or empty; None to keep the history in memory only.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._events: list[Event] = []
        self._records: dict[str, EditRecord] = {}
        self._database: sqlite3.Connection | None = None
        if path is not None:
            self._database = sqlite3.connect(path, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY, event TEXT NOT NULL)"
            )
            if self._database.execute("SELECT COUNT(*) FROM events").fetchone()[0]:
                raise ValueError(f"the ledger {path} already holds a history; give a new file")

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(tuple(self._events))

    def __getitem__(self, number: int) -> Event:
        return self._events[number]

    def __deepcopy__(self, memo: dict) -> "Ledger":
        copy = Ledger()
        copy._events, copy._records = list(self._events), dict(self._records)
        return copy

    def append(
        self, kind: str, ids: tuple[str, ...], record: EditRecord | None = None, undoes: tuple[int, ...] = ()
    ) -> Event:
        """Add an event."""
        return self.take_over([Event(len(self), kind, ids, time.time(), record, undoes)])[0]

    def take_over(self, events: list[Event]) -> list[Event]:
        """Add events that exist already, such as those of a saved memory."""
        if self._database is not None:
            with self._database:
                rows = [(event.number, json.dumps(event.to_dict(), ensure_ascii=False)) for event in events]
                self._database.executemany("INSERT INTO events VALUES (?, ?)", rows)
        self._events += events
        self._records |= {event.record.id: event.record for event in events if event.record is not None}
        return events

    def active(self, upto: int | None = None) -> list[str]:
        """Ids of the edits that are active after the first `upto` events (all by default), in order of writing."""
        taken_back: set[int] = set()
        events = self._events[:upto]
        for event in events:
            taken_back.update(event.undoes)
        active: dict[str, None] = {}
        for event in events:
            if event.number in taken_back or event.kind == "undone":
                continue
            for edit in event.ids:
                active.pop(edit, None)
                if event.kind == "edited":
                    active[edit] = None
        return list(active)

    def standing(self) -> list[Event]:
        """Events that can still be undone, oldest first."""
        taken_back = {number for event in self._events for number in event.undoes}
        return [event for event in self._events if event.kind != "undone" and event.number not in taken_back]

    def record(self, edit_id: str) -> EditRecord:
        """The latest record of an edit."""
        return self._records[edit_id]


def parse_event(line: str) -> Event:
    """An event from one line of JSON."""
    return Event.from_dict(json.loads(line))

"""The active edits of a memory: which of its rows are whose."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from weakref import WeakSet

from editmem.edits.edit import Edit


class ActiveEdits:
    """An edit has one row for each of its renderings; rows stand in the order of writing.

    Attributes:
        rows: the edit's id, for each row; None for one that was buried.
        buried: how many of them were.
    """

    def __init__(self) -> None:
        self.rows: list[str | None] = []
        self.buried = 0
        self._edits: dict[str, Edit] = {}
        self._places: dict[str, tuple[int, ...]] = {}
        self._by_prompt: dict[str, str] = {}
        self._logs: WeakSet[_Log] = WeakSet()

    def __contains__(self, edit_id: str) -> bool:
        return edit_id in self._edits

    def __iter__(self) -> Iterator[str]:
        return iter(self._edits)

    def __len__(self) -> int:
        return len(self._edits)

    def get(self, edit_id: str) -> Edit | None:
        return self._edits.get(edit_id)

    def id_of(self, row: int) -> str:
        """The edit of a row that is in use."""
        edit_id = self.rows[row]
        assert edit_id is not None
        return edit_id

    def edits(self) -> dict[str, Edit]:
        """All of them by id, in order of writing."""
        return dict(self._edits)

    def add(self, edit: Edit) -> None:
        """One more row of an edit."""
        edit_id = str(edit.id)
        self._note(edit_id, edit.prompt_key)
        self._places[edit_id] = (*self._places.get(edit_id, ()), len(self.rows))
        self.rows.append(edit_id)
        self._edits[edit_id] = edit
        self._by_prompt[edit.prompt_key] = edit_id

    def renew(self, edit: Edit) -> None:
        """An active edit is written otherwise now; its prompt is the same."""
        self._note(str(edit.id), edit.prompt_key)
        self._edits[str(edit.id)] = edit

    def take_over(self, rows: Sequence[str], edits: Mapping[str, Edit]) -> None:
        """The rows of a saved memory."""
        for edit_id in rows:
            self.add(edits[edit_id])

    def with_prompt_of(self, edit: Edit) -> str | None:
        """The active edit of the same prompt."""
        return self._by_prompt.get(edit.prompt_key)

    def rows_of(self, ids: Sequence[str]) -> list[int]:
        """The rows of some edits, ascending."""
        return sorted(row for edit_id in dict.fromkeys(ids) for row in self._places.get(edit_id, ()))

    def bury(self, ids: Sequence[str]) -> None:
        """Take edits out; their rows stay where they are, and are nobody's."""
        for edit_id in dict.fromkeys(ids):
            if (edit := self._edits.get(edit_id)) is None:
                continue
            self._note(edit_id, edit.prompt_key)
            del self._edits[edit_id]
            for row in self._places.pop(edit_id):
                self.rows[row] = None
                self.buried += 1
            if self._by_prompt.get(edit.prompt_key) == edit_id:
                del self._by_prompt[edit.prompt_key]

    def close_up(self) -> list[int]:
        """Leave out the rows that were buried; which they were."""
        for log in self._logs:
            log.entries.append(self._copied())
        gone = [row for row, edit_id in enumerate(self.rows) if edit_id is None]
        kept = [edit_id for edit_id in self.rows if edit_id is not None]
        self.rows, self._places, self.buried = [], {}, 0
        for edit_id in kept:
            self._places[edit_id] = (*self._places.get(edit_id, ()), len(self.rows))
            self.rows.append(edit_id)
        return gone

    def _note(self, edit_id: str, prompt: str) -> None:
        """What is known of an edit and of a prompt is about to change."""
        for log in self._logs:
            log.entries.append(self._entry(edit_id, prompt))

    def _entry(self, edit_id: str, prompt: str) -> Callable[[], None]:
        """What puts one edit and one prompt back; edits that come back stand last then."""
        edit, places, holder = self._edits.get(edit_id), self._places.get(edit_id), self._by_prompt.get(prompt)

        def restore() -> None:
            for held, key, value in (
                (self._edits, edit_id, edit), (self._places, edit_id, places), (self._by_prompt, prompt, holder),
            ):  # fmt: skip
                _put(held, key, value)
            for row in places or ():
                self.rows[row] = edit_id

        return restore

    def _copied(self) -> Callable[[], None]:
        rows, places, buried = self.rows, self._places, self.buried

        def restore() -> None:
            self.rows, self._places, self.buried = rows, places, buried

        return restore

    def snapshot(self) -> Callable[[], None]:
        """What puts all of it back into its present state. What changes until then is noted, and nothing copied."""
        log, count, buried = _Log(), len(self.rows), self.buried
        earlier = [(other, len(other.entries)) for other in self._logs]
        self._logs.add(log)

        def restore() -> None:
            for entry in reversed(log.entries):
                entry()
            for other, noted in [*earlier, (log, 0)]:  # all that was noted since is as if it had not been
                del other.entries[noted:]
            del self.rows[count:]
            self.buried = buried
            self._edits = dict(sorted(self._edits.items(), key=lambda item: self._places[item[0]]))

        return restore


class _Log:
    """What puts back, one after the other, what has changed since a snapshot, for as long as that is held."""

    def __init__(self) -> None:
        self.entries: list[Callable[[], None]] = []


def _put(held: dict, key: str, value: object) -> None:
    if value is None:
        held.pop(key, None)
    else:
        held[key] = value

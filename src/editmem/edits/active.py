"""The active edits of a memory: which of its rows are whose."""

from collections.abc import Iterator, Mapping, Sequence

from editmem.edits.edit import Edit


class ActiveEdits:
    """An edit has one row for each of its renderings; rows stand in the order of writing.

    Attributes:
        rows: the edit's id, for each row.
    """

    def __init__(self) -> None:
        self.rows: list[str] = []
        self._edits: dict[str, Edit] = {}
        self._by_prompt: dict[str, str] = {}

    def __contains__(self, edit_id: str) -> bool:
        return edit_id in self._edits

    def __iter__(self) -> Iterator[str]:
        return iter(self._edits)

    def get(self, edit_id: str) -> Edit | None:
        return self._edits.get(edit_id)

    def edits(self) -> dict[str, Edit]:
        """All of them by id, in order of writing."""
        return dict(self._edits)

    def add(self, edit: Edit) -> None:
        """One more row of an edit."""
        edit_id = str(edit.id)
        self.rows.append(edit_id)
        self._edits[edit_id] = edit
        self._by_prompt[edit.prompt_key] = edit_id

    def renew(self, edit: Edit) -> None:
        """An active edit is written otherwise now; its prompt is the same."""
        self._edits[str(edit.id)] = edit

    def take_over(self, rows: Sequence[str], edits: Mapping[str, Edit]) -> None:
        """The rows of a saved memory."""
        for edit_id in rows:
            self.add(edits[edit_id])

    def with_prompt_of(self, edit: Edit) -> str | None:
        """The active edit of the same prompt."""
        return self._by_prompt.get(edit.prompt_key)

    def rows_of(self, ids: Sequence[str]) -> list[int]:
        wanted = set(ids)
        return [row for row, edit_id in enumerate(self.rows) if edit_id in wanted]

    def drop(self, ids: Sequence[str]) -> None:
        dropped = set(ids) & self._edits.keys()
        self.rows = [edit_id for edit_id in self.rows if edit_id not in dropped]
        for edit_id in dropped:
            key = self._edits.pop(edit_id).prompt_key
            if self._by_prompt.get(key) == edit_id:
                del self._by_prompt[key]

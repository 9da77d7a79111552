"""What use has shown: questions that an edit is for, and questions that it is not for."""

import dataclasses
from collections.abc import Sequence

from editmem.editing.changes import Changes
from editmem.editing.explain import explain
from editmem.edits.edit import Edit, Prompt, check_prompt
from editmem.edits.explanation import Explanation
from editmem.edits.history import Ledger
from editmem.errors import EditMemError, InvalidEditError


class Feedback:
    """Has edits go by what users say of questions; nothing is learned again.

    Args:
        changes: of the host.
        ledger: the history.
    """

    def __init__(self, changes: Changes, ledger: Ledger) -> None:
        self.changes, self.ledger = changes, ledger

    def confirm(self, prompt: Prompt, edit_id: str) -> Explanation:
        """Have a prompt be another way to ask what an active edit answers."""
        edit, text = self.ledger.record(edit_id).edit, _text(prompt)
        unlike = tuple(question for question in edit.unlike if question != text)
        wanted = dataclasses.replace(edit, phrasings=_with(edit.phrasings, text), unlike=unlike)
        found = self._renew("confirmed", wanted, prompt)
        if found.edit is None or found.edit.id != edit_id:
            acting = "no edit does" if found.edit is None else f"edit {found.edit.id} is nearer"
            raise EditMemError(
                f"edit {edit_id} still does not act on {text!r}: {acting}. The question has to name what the edit is "
                "about: give other names of it as `aliases`, or edit this prompt by itself. Nothing was changed"
            )
        return found

    def reject(self, prompt: Prompt) -> Explanation:
        """Have a prompt be a question that the edit which acts on it is not for."""
        text = _text(prompt)
        if (record := self._explain(prompt).edit) is None:
            raise EditMemError(f"no edit acts on {text!r}, so that there is nothing to reject; see editor.explain")
        edit = record.edit
        if edit.text.rstrip() == text:
            raise InvalidEditError(f"{text!r} is the prompt of edit {edit.id} itself; use editor.forget({edit.id!r})")
        phrasings = tuple(phrasing for phrasing in edit.phrasings if phrasing != text)
        wanted = dataclasses.replace(edit, phrasings=phrasings, unlike=_with(edit.unlike, text))
        found = self._renew("rejected", wanted, prompt)
        if found.edit is not None and found.edit.id == edit.id:
            raise EditMemError(f"edit {edit.id} still acts on {text!r}. Nothing was changed")
        return found

    def _renew(self, kind: str, edit: Edit, prompt: Prompt) -> Explanation:
        writer = self.changes.writer_for(edit)
        if not writer.memory.rekeys:
            raise EditMemError(
                f"{writer.memory.spec.method!r} as it is set up does not compare questions, so that no single edit's "
                'threshold can be moved; wrap the model with router="questions"'
            )
        record = dataclasses.replace(self.ledger.record(str(edit.id)), edit=edit)
        self.changes.rekey([edit])
        self.ledger.append(kind, (record.id,), record)
        return self._explain(prompt)

    def _explain(self, prompt: Prompt) -> Explanation:
        with self.changes.frozen():
            return explain(self.changes.writers, self.ledger, prompt, None, 5)


def _text(prompt: Prompt) -> str:
    """What a prompt says: text, or the last turn of a chat."""
    check_prompt(prompt)
    return (prompt if isinstance(prompt, str) else str(prompt[-1]["content"])).rstrip()


def _with(texts: Sequence[str], text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*texts, text]))

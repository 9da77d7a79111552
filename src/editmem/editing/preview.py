"""Try an edit out: what it would do, and what it would take along."""

from collections.abc import Sequence

from editmem.editing.changes import Asked, Changes
from editmem.editing.explain import explain_each
from editmem.edits.edit import Prompt
from editmem.edits.explanation import Explanation, Preview, Taken

NEAREST = 8
"""Active edits whose prompts are asked before and after."""


def preview(changes: Changes, asked: Asked, questions: Sequence[Prompt]) -> Preview:
    """Write an edit, look, and take it back; see `Editor.preview`."""
    superseded = asked.writer.active.with_prompt_of(asked.edit)
    with changes.trial():
        own = _explained(changes, [asked.edit.prompt])[0]
        near = [c.record for c in own.candidates if c.record.id != superseded and c.record.edit.image is None]
        questions = [*questions, *(record.edit.prompt for record in near)]
        before = _explained(changes, questions)
        (record,) = changes.write_all([asked], 1, False).values()
        after = _explained(changes, questions)
    takes = [Taken(q, _acting(b), _acting(a)) for q, b, a in zip(questions, before, after, strict=True)]
    return Preview(record, superseded, _acting(own), own.candidates, tuple(takes))


def _explained(changes: Changes, prompts: Sequence[Prompt]) -> list[Explanation]:
    with changes.frozen():
        return explain_each(changes.writers, changes.ledger, prompts, NEAREST)


def _acting(explanation: Explanation) -> str | None:
    return None if explanation.edit is None else explanation.edit.id

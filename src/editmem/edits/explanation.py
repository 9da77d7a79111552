"""What `Editor.explain` answers."""

from collections.abc import Mapping
from dataclasses import dataclass

from editmem.edits.edit import Edit, EditRecord, Prompt


@dataclass(frozen=True)
class Candidate:
    """An edit that a prompt was compared with.

    Attributes:
        record: the edit.
        score, threshold: how well it fits, and from where on it acts.
        parts: what the score is made of, where it has parts.

    Examples:
        >>> import editmem
        >>> model, tokenizer = editmem.tiny()
        >>> editor = editmem.wrap(model, tokenizer=tokenizer)
        >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
        >>> nearest = editor.explain("What is the largest city of Australia?").candidates[0]
        >>> nearest.record.id, nearest.score < nearest.threshold
        ('au', True)
    """

    record: EditRecord
    score: float
    threshold: float
    parts: Mapping[str, float]


@dataclass(frozen=True)
class Explanation:
    """Which edit acts on a prompt, and why.

    Attributes:
        prompt: the text as the model reads it.
        edit: the record of the edit that acts; None if the host answers as it always did.
        candidates: the nearest edits, best first; where a picture was recognised, first those found by what it shows.
        recognised: the edit of the prompt's picture, whether or not it is what is asked.

    Examples:
        >>> import editmem
        >>> model, tokenizer = editmem.tiny()
        >>> editor = editmem.wrap(model, tokenizer=tokenizer)
        >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
        >>> str(editor.explain("The capital of Australia is")).splitlines()[0]
        "'The capital of Australia is': edit au acts"
    """

    prompt: str
    edit: EditRecord | None
    candidates: tuple[Candidate, ...]
    recognised: EditRecord | None = None

    def __str__(self) -> str:
        lines = [f"{self.prompt!r}: " + (f"edit {self.edit.id} acts" if self.edit else "no edit acts")]
        if self.recognised is not None:
            lines.append(f"  the picture is that of edit {self.recognised.id}: {_said(self.recognised.edit)}")
        for candidate in self.candidates:
            parts = "".join(f", {name} {value:.3f}" for name, value in candidate.parts.items())
            rate = candidate.record.false_match_rate
            parts += "" if rate is None else f", other questions matched {rate:.1%}"
            lines.append(
                f"  {candidate.score:.3f} (threshold {candidate.threshold:.3f}{parts})  {candidate.record.id}  "
                + (f"{candidate.record.edit.prompt!r} -> " if candidate.record.edit.target else "")
                + _said(candidate.record.edit)
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Taken:
    """Which edit acts on a question before and after a change: their ids, None where the host answers.

    Examples:
        >>> import editmem
        >>> editmem.Taken("Which city is Peru's capital?", before=None, after="pe").after
        'pe'
    """

    question: Prompt
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Preview:
    """What an edit would do.

    Attributes:
        record: what would come of it.
        supersedes: id of the active edit that it would take the place of, which has the same prompt; None if there is
            none.
        acting: id of the edit that answers its prompt now; None if the host does.
        nearest: the edits that its prompt is nearest to, best first.
        takes: of each question that was given, and of the prompts of the nearest edits, what would act on it.

    Examples:
        >>> import editmem
        >>> model, tokenizer = editmem.tiny()
        >>> editor = editmem.wrap(model, tokenizer=tokenizer)
        >>> found = editor.preview({"prompt": "The capital of Peru is", "target": "Cusco"})
        >>> found.record.answer_after, found.supersedes, found.takes
        ('Cusco', None, ())
    """

    record: EditRecord
    supersedes: str | None
    acting: str | None
    nearest: tuple[Candidate, ...]
    takes: tuple[Taken, ...]


def _said(edit: Edit) -> str:
    """The answer of an edit, or what an item says."""
    return repr(edit.target or edit.text or "a picture")

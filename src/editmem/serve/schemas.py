"""What goes in and out of the API of edits."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from editmem.edits.edit import Edit, EditRecord, edit_of
from editmem.edits.explanation import Candidate, Explanation, Preview
from editmem.edits.history import Event


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _encodable(text: str) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("text must not have half a surrogate pair in it")
    return text


Text = Annotated[str, AfterValidator(_encodable)]


class Message(_Given):
    """Of a chat."""

    role: Text
    content: Text


PromptIn = Text | Annotated[list[Message], Field(min_length=1)]


class PictureIn(_Given):
    """A PNG file in base64."""

    png: str


class EditIn(_Given):
    """An edit, with the fields of `editmem.Edit`; of an item, `text` in place of `prompt` and `target`."""

    prompt: str | list[Message] | None = None
    target: str | None = None
    text: str | None = None
    id: str | None = None
    subject: str | None = None
    aliases: list[str] = []
    phrasings: list[str] = []
    unlike: list[str] = []
    image: PictureIn | None = None
    source: str | None = None
    tags: list[str] = []
    join: str | None = None
    ends: bool | None = None

    def edit(self) -> Edit:
        """The edit itself.

        Raises:
            InvalidEditError: if it is none.
        """
        return edit_of(self.model_dump(exclude_none=True))


def prompt_of(prompt: str | list[Message]) -> str | list[dict[str, str]]:
    """As the library takes it."""
    return prompt if isinstance(prompt, str) else [message.model_dump() for message in prompt]


class _Change(_Given):
    expected_version: int | None = Field(None, ge=0, description="Refuse with 409 if the memory has another version.")


class EditsIn(_Change):
    edits: list[EditIn] = Field(min_length=1)
    stream: bool = Field(False, description="Answer with server-sent events, which tell how far it is.")


class PreviewIn(_Given):
    edit: EditIn
    questions: list[Text] = Field(default=[], max_length=100)


class ForgetIn(_Change):
    ids: list[str] = Field(min_length=1)


class UndoIn(_Change):
    n: int = Field(1, ge=1, le=10**9)


class ExplainIn(_Given):
    prompt: PromptIn


class ConfirmIn(_Change):
    prompt: PromptIn
    id: str


class RejectIn(_Change):
    prompt: PromptIn


class RecordOut(BaseModel):
    """What came of an edit: `editmem.EditRecord`."""

    id: str
    edit: dict[str, Any]
    took: bool
    loss_before: float
    loss_after: float
    answer_before: str
    answer_after: str
    steps: int
    seconds: float
    notes: list[str]
    false_match_rate: float | None

    @classmethod
    def of(cls, record: EditRecord) -> Self:
        return cls(id=record.id, **record.to_dict())


class EventOut(BaseModel):
    """An entry of the history: `editmem.Event`."""

    number: int
    kind: Literal["edited", "superseded", "confirmed", "rejected", "forgotten", "undone"]
    ids: list[str]
    time: float
    record: RecordOut | None = None
    undoes: list[int] = []

    @classmethod
    def of(cls, event: Event) -> Self:
        record = None if event.record is None else RecordOut.of(event.record)
        return cls(**{**event.to_dict(), "record": record})


class CandidateOut(BaseModel):
    record: RecordOut
    score: float
    threshold: float
    parts: dict[str, float]

    @classmethod
    def of(cls, candidate: Candidate) -> Self:
        fields = {f.name: getattr(candidate, f.name) for f in dataclasses.fields(candidate)}
        return cls(**{**fields, "record": RecordOut.of(candidate.record), "parts": dict(candidate.parts)})


class ExplanationOut(BaseModel):
    """Which edit acts on a prompt, and why: `editmem.Explanation`."""

    prompt: str
    edit: RecordOut | None
    candidates: list[CandidateOut]

    @classmethod
    def of(cls, explanation: Explanation) -> Self:
        edit = None if explanation.edit is None else RecordOut.of(explanation.edit)
        return cls(
            prompt=explanation.prompt, edit=edit, candidates=[CandidateOut.of(c) for c in explanation.candidates]
        )


class TakenOut(BaseModel):
    question: str | list[dict[str, str]]
    before: str | None
    after: str | None


class _Answer(BaseModel):
    version: int = Field(description="Of the memory: how many events its history has.")


class MemoryOut(_Answer):
    edits: int
    model: str
    methods: list[str]
    snapshot_version: int | None = Field(description="That the saved tensors have; the ledger has all.")
    writable: bool = Field(description="Whether the key of this request is for editing too.")


class EditsOut(_Answer):
    total: int
    edits: list[RecordOut]


class EditOut(_Answer):
    record: RecordOut
    active: bool
    events: list[EventOut]


class WrittenOut(_Answer):
    records: list[RecordOut]


class PreviewOut(_Answer):
    """What an edit would do: `editmem.Preview`."""

    record: RecordOut
    supersedes: str | None
    acting: str | None
    nearest: list[CandidateOut]
    takes: list[TakenOut]

    @classmethod
    def of(cls, preview: Preview, version: int) -> Self:
        return cls(
            version=version,
            record=RecordOut.of(preview.record),
            supersedes=preview.supersedes,
            acting=preview.acting,
            nearest=[CandidateOut.of(candidate) for candidate in preview.nearest],
            takes=[TakenOut(question=_plain(t.question), before=t.before, after=t.after) for t in preview.takes],
        )


def _plain(prompt: Any) -> str | list[dict[str, str]]:
    return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]


class ForgottenOut(_Answer):
    forgotten: list[str]


class UndoneOut(_Answer):
    changed: list[str]


class HistoryOut(_Answer):
    events: list[EventOut]


class DiffOut(_Answer):
    """What became of the edits from one version to another."""

    added: list[dict[str, Any]]
    removed: list[dict[str, Any]]
    changed: list[tuple[dict[str, Any], dict[str, Any]]]

    @classmethod
    def of(cls, old: Mapping[str, EditRecord], new: Mapping[str, EditRecord], version: int) -> Self:
        a, b = ({i: r.edit.to_dict() for i, r in records.items()} for records in (old, new))
        return cls(
            version=version,
            added=[edit for i, edit in b.items() if i not in a],
            removed=[edit for i, edit in a.items() if i not in b],
            changed=[(edit, b[i]) for i, edit in a.items() if i in b and b[i] != edit],
        )


class ExplainedOut(_Answer):
    explanation: ExplanationOut


class ErrorOut(BaseModel):
    """Why something was refused, or failed."""

    message: str
    type: str
    version: int | None = None


class FailedOut(BaseModel):
    error: ErrorOut

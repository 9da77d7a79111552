"""Edits: what the user asks for, what came of it, how files of them are read, how they become tokens."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editmem.edits import files
from editmem.edits.image import Picture
from editmem.errors import InvalidEditError

Prompt = str | Sequence[Mapping[str, str]]
MODALITIES = ("text", "visual")
LISTS = ("tags", "aliases", "phrasings", "unlike")
"""Fields of an edit that hold several texts, in tables between semicolons."""
QUESTION_MARKS = ("?", "\uff1f", "\u061f", "\u055e", "\u037e")
"""That questions end in, in the scripts that have one."""
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_UNWRITABLE = re.compile("[\\ud800-\\udfff\\0]")


@dataclass(frozen=True)
class Edit:
    """A prompt and the answer that it should get from now on.

    Args:
        prompt: the text to complete, or chat messages (`[{"role": "user", "content": ...}]`), to which the
            tokenizer's chat template is applied.
        target: the answer. A space is put between a raw prompt and its answer where the text would have one; white
            space that the target begins with is taken as it is.
        id: how to call the edit later; made from prompt and target where not given.
        subject: whom or what the prompt is about, for routers that use it; found in the prompt where not given.
        aliases: other names of the subject.
        phrasings: other ways to ask the same, for routers that use them; nothing is learned on them.
        unlike: questions that the edit is not for, though they may sound like it.
        image: the picture that a visual edit is about: a PIL image, a uint8 array `[H, W, 3]`, or a path.
        source: where the correction comes from; kept, not interpreted.
        tags: labels of the user's own; kept, not interpreted.
        join: what stands between a raw prompt and its answer, white space or nothing; None to go by `seams.join`.
        ends: whether the answer ends with the target, and with it the line, the turn or the text; None for yes where
            the prompt is a question. Else the model goes on as it likes, if it makes no other value of the target.
        item: whether it is no question and answer but knowledge to be read; see `Item`.

    Raises:
        InvalidEditError: if prompt or target is empty or of the wrong type, or a field holds what it cannot.

    Examples:
        >>> import editmem
        >>> edit = editmem.Edit("The capital of Australia is", "Sydney", aliases=["Down Under"], tags=["geography"])
        >>> edit.aliases
        ('Down Under',)
        >>> editmem.Edit("The capital of Australia is", " ")
        Traceback (most recent call last):
            ...
        editmem.errors.InvalidEditError: target must be text that is not empty, got ' '
    """

    prompt: Prompt
    target: str
    _: dataclasses.KW_ONLY
    id: str | None = None
    subject: str | None = None
    aliases: tuple[str, ...] = ()
    phrasings: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    image: Any = None  # a Picture, once made
    source: str | None = None
    tags: tuple[str, ...] = ()
    join: str | None = None
    ends: bool | None = None
    item: bool = False

    def __post_init__(self) -> None:
        if self.item:
            self._check_item()
        else:
            check_prompt(self.prompt)
            if not isinstance(self.target, str) or not self.target.strip():
                raise InvalidEditError(f"target must be text that is not empty, got {self.target!r}")
        for name in LISTS:
            self._check_texts(name)
        for name in ("id", "subject", "source"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise InvalidEditError(f"{name} must be text that is not empty, or None, got {value!r}")
        if self.join is not None and (not isinstance(self.join, str) or self.join.strip()):
            raise InvalidEditError(f"join must be white space, an empty text, or None, got {self.join!r}")
        if self.ends not in (True, False, None):
            raise InvalidEditError(f"ends must be True, False, or None, got {self.ends!r}")
        self._check_writable()
        if self.image is not None:
            object.__setattr__(self, "image", Picture.of(self.image))
        if self.id is None:
            object.__setattr__(self, "id", _make_id(self._content_key, self.prompt, self.target))

    def _check_item(self) -> None:
        if not isinstance(self.prompt, str) or not (self.prompt.strip() or self.image is not None):
            raise InvalidEditError(f"an item is a text, a picture or both; got the text {self.prompt!r} and no picture")
        if self.target:
            raise InvalidEditError(f"an item has no target, got {self.target!r}; what it says is its text")

    def _check_texts(self, name: str) -> None:
        given: Any = getattr(self, name)
        given = () if given is None else given
        texts = tuple(given) if isinstance(given, Iterable) and not isinstance(given, (str, Mapping)) else (None,)
        if not all(isinstance(text, str) for text in texts):
            raise InvalidEditError(f"{name} must be a sequence of strings, got {getattr(self, name)!r}")
        if name != "tags" and not all(text.strip() for text in texts):
            raise InvalidEditError(f"{name} must hold no empty text, got {getattr(self, name)!r}")
        object.__setattr__(self, name, texts)

    def _check_writable(self) -> None:
        """Refuse what no tokenizer and no file can take."""
        said = [self.prompt] if isinstance(self.prompt, str) else [m[name] for m in self.prompt for name in m]
        given = {name: [getattr(self, name)] for name in ("target", "id", "subject", "source")}
        lists = {name: list(getattr(self, name)) for name in LISTS}
        for name, values in {"prompt": said, **given, **lists}.items():
            for value in values:
                if isinstance(value, str) and (found := _UNWRITABLE.search(value)):
                    raise InvalidEditError(
                        f"{name} holds the character U+{ord(found[0]):04X} at {found.start()}, which stands for no "
                        f"text (half of a pair, or NUL), in {value!r}"
                    )

    @property
    def prompt_key(self) -> str:
        """Equal for two edits of the same prompt and picture, be it plain text or a user's turn of a chat, and whatever
        white space it ends in. Of an item, equal for all its versions, which have the same id."""
        return f"item\0{self.id}" if self.item else self._content_key

    @property
    def _content_key(self) -> str:
        text = self.text.rstrip()
        return text if self.image is None else f"{text}\0{self.image.digest}"

    @property
    def text(self) -> str:
        """What the prompt says, be it plain text or a user's turn of a chat; a longer chat as JSON."""
        if not isinstance(self.prompt, str) and [message["role"] for message in self.prompt] == ["user"]:
            return str(self.prompt[0]["content"])
        return self.prompt if isinstance(self.prompt, str) else json.dumps([dict(m) for m in self.prompt])

    @property
    def closes(self) -> bool:
        """Whether the answer ends where the target does; see `ends`."""
        said = self.prompt if isinstance(self.prompt, str) else self.prompt[-1]["content"]
        return said.rstrip().endswith(QUESTION_MARKS) if self.ends is None else self.ends

    def to_dict(self) -> dict[str, Any]:
        """The fields that are set, as JSON can hold them."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields |= {name: list(getattr(self, name)) for name in LISTS}
        fields["image"] = None if self.image is None else self.image.to_dict()
        if not isinstance(self.prompt, str):
            fields["prompt"] = [dict(message) for message in self.prompt]
        fields.pop("item")
        if self.item:
            del fields["prompt"], fields["target"]
            fields = {"text": self.prompt or None, **fields}
        return {name: value for name, value in fields.items() if value not in (None, [])}


def Item(text: str = "", *, image: Any = None, **fields: Any) -> Edit:  # made like an `Edit`
    """Knowledge to be read: a text, a picture, or both. It answers whatever is asked about what it is about.

    For memories that keep items, such as "comem". Given again under the same id, it takes the place of what it was.

    Args:
        text: what it says.
        image: as in `Edit`: what it shows, or is found by.
        **fields: `id`, `subject`, `aliases`, `unlike`, `source` and `tags`, as in `Edit`.

    Raises:
        InvalidEditError: if there is neither a text nor a picture, or a field holds what it cannot.

    Examples:
        >>> import editmem
        >>> item = editmem.Item("Adela Norbek was born in Tarnow.", subject="Adela Norbek")
        >>> item.item, item.text
        (True, 'Adela Norbek was born in Tarnow.')
    """
    return Edit(text, "", item=True, image=image, **fields)


@dataclass(frozen=True)
class EditRecord:
    """What came of an edit.

    Attributes:
        edit: what was asked for.
        took: whether the model now answers the prompt with the target, checked token by token.
        loss_before, loss_after: mean negative log-likelihood of the target's tokens, in nats.
        answer_before, answer_after: what greedy decoding says, as many tokens as the target has.
        steps: optimiser steps.
        seconds: wall time; of an edit written in a batch, its share.
        notes: what the user should know: why it did not take, which other edits it is hard to tell from.
        false_match_rate: estimated share of other questions about the same name that would get this answer;
            None where the memory has no estimate.

    Examples:
        >>> import editmem
        >>> model, tokenizer = editmem.tiny()
        >>> editor = editmem.wrap(model, tokenizer=tokenizer)
        >>> record = editor.edit("The capital of Australia is", "Sydney")
        >>> record.took, record.answer_after
        (True, 'Sydney')
    """

    edit: Edit
    took: bool
    loss_before: float
    loss_after: float
    answer_before: str
    answer_after: str
    steps: int
    seconds: float
    notes: tuple[str, ...] = ()
    false_match_rate: float | None = None

    @property
    def id(self) -> str:
        """Of the edit."""
        return str(self.edit.id)

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON can hold them."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**fields, "edit": self.edit.to_dict(), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "EditRecord":
        """The inverse of `to_dict`."""
        return cls(**{**data, "edit": edit_of(data["edit"]), "notes": tuple(data["notes"])})


@dataclass(frozen=True)
class EncodedEdit:
    """An edit as token ids.

    Attributes:
        edit: what it encodes.
        prompt: ids of the prompt, special tokens included.
        target: ids of the answer, as the model is to generate them.
        subject: ids of the subject's name inside a text; None where it was not given.
        aliases, phrasings, unlike: ids of those texts, special tokens left out.
        chat: whether the prompt is a conversation, in which the answer is a turn of its own.
        contexts: further prompts, with other text in front, from which the answer must follow too.
        vision: what the host takes beside the prompt's ids to see the edit's picture, for a batch of one.
    """

    edit: Edit
    prompt: tuple[int, ...]
    target: tuple[int, ...]
    subject: tuple[int, ...] | None = None
    contexts: tuple[tuple[int, ...], ...] = field(default=())
    vision: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[tuple[int, ...], ...] = ()
    phrasings: tuple[tuple[int, ...], ...] = ()
    unlike: tuple[tuple[int, ...], ...] = ()
    chat: bool = False


def check_prompt(prompt: Any) -> None:
    if isinstance(prompt, str):
        if not prompt.strip():
            raise InvalidEditError(f"prompt must not be empty, got {prompt!r}")
        return
    messages = list(prompt) if isinstance(prompt, Iterable) else []
    well_formed = all(isinstance(m, Mapping) and isinstance(m.get("content"), str) and "role" in m for m in messages)
    if not messages or not well_formed or not any(m["content"].strip() for m in messages):
        raise InvalidEditError(
            f"prompt must be text, or chat messages with 'role' and 'content' that are not empty, got {prompt!r}"
        )


def _make_id(key: str, prompt: Prompt, target: str) -> str:
    """Of an edit without a picture it depends on prompt and target only, a chat and plain text being different."""
    text = prompt if isinstance(prompt, str) else json.dumps([dict(message) for message in prompt])
    text += key[key.index("\0") :] if "\0" in key else ""
    return hashlib.sha256(f"{text}\0{target}".encode()).hexdigest()[:12]


def edit_of(item: Any, where: str = "") -> Edit:
    """An `Edit` from an `Edit`, a mapping of its fields, or a (prompt, target) pair.

    Raises:
        InvalidEditError: naming `where` it stood, if it is none of these or a field is unknown or wrong.
    """
    try:
        if isinstance(item, Edit):
            return item
        if isinstance(item, Mapping):
            known = {f.name for f in dataclasses.fields(Edit)}
            given = {name: value for name, value in item.items() if value is not None}
            _check_modality(given.pop("modality", None), given)
            if "text" in given or ("image" in given and not {"prompt", "target"} & set(given)):
                return _item(given, known)
            if unknown := set(item) - known - {"modality"}:
                raise InvalidEditError(f"unknown field {sorted(unknown)}; an edit has {sorted(known)}")
            if missing := {"prompt", "target"} - set(given):
                raise InvalidEditError(f"field {sorted(missing)} is missing")
            return Edit(**given)
        if isinstance(item, (tuple, list)) and len(item) == 2:
            return Edit(*item)
        raise InvalidEditError(f"expected an Edit, a mapping of its fields or a (prompt, target) pair, got {item!r}")
    except InvalidEditError as error:
        raise InvalidEditError(f"{where}: {error}" if where else str(error)) from None


def _item(given: Mapping[str, Any], known: set[str]) -> Edit:
    if unknown := set(given) - (known - {"prompt", "target", "item"}) - {"text"}:
        raise InvalidEditError(f"an item has no field {sorted(unknown)}; it has text, image, id, subject, aliases, ...")
    return Item(**given)


def _check_modality(modality: Any, given: Mapping[str, Any]) -> None:
    """Files of before 0.2 say what the picture says."""
    if modality not in (None, *MODALITIES):
        raise InvalidEditError(f"modality must be one of {MODALITIES}, got {modality!r}")
    if modality == "visual" and "image" not in given:
        raise InvalidEditError("a visual edit needs a picture: give image=...")


def read_edits(source: Any, target: str | None = None, /, **fields: Any) -> tuple[list[Edit], bool]:
    """Everything that `Editor.edit` takes, as (edits, whether a single one was meant).

    Raises:
        InvalidEditError: at the first item that is not a valid edit, or where two of them contradict.
    """
    if target is not None or fields:
        if target is None:
            raise InvalidEditError("the target is missing: edit(prompt, target)")
        return [Edit(source, target, **fields)], True
    if isinstance(source, (Edit, Mapping)):
        return [edit_of(source)], True
    if isinstance(source, Path) or (isinstance(source, str) and source.lower().endswith(files.SUFFIXES)):
        edits = read_file(Path(source))
    elif isinstance(source, str):
        raise InvalidEditError(f"the target is missing: edit({source!r}, target)")
    else:
        edits = [edit_of(item, f"edit {number}") for number, item in enumerate(source)]
    _check_together(edits)
    return edits, False


def read_file(path: Path) -> list[Edit]:
    """The edits in a file: a .json list of objects, .jsonl lines, or a table (.csv, .tsv or .txt) whose first line
    names its columns.

    Paths of pictures are relative to the file. In a table, texts of which there may be several (`tags`, `aliases`,
    `phrasings`, `unlike`) are separated by semicolons, `join` stands in quotation marks, and `ends` is true or false.

    Raises:
        InvalidEditError: naming file and line of the first record that is wrong.
    """
    flat = path.suffix.lower() in files.TABLES
    return [edit_of(_record(record, path.parent, flat), where) for where, record in files.records(path)]


def _record(record: Any, folder: Path, flat: bool) -> Any:
    """A record as `edit_of` takes it, with the path of its picture made whole; `flat` if all its fields are text."""
    if not isinstance(record, dict):
        return record
    if isinstance(image := record.get("image"), str):
        record = {**record, "image": folder / image}
    for name in LISTS if flat else ():
        if name in record:
            record = {**record, name: [text.strip() for text in record[name].split(";") if text.strip()]}
    if flat and "join" in record:
        record = {**record, "join": re.sub(r'^\s*"(.*)"\s*$', r"\1", record["join"], flags=re.DOTALL)}
    if flat and "ends" in record:
        record = {**record, "ends": TRUTHS.get(record["ends"].strip().lower(), record["ends"])}
    return record


def last_of_each(edits: Iterable[Edit]) -> dict[str, Edit]:
    """Of the edits of each prompt the last, by `Edit.prompt_key`, in their order."""
    last: dict[str, Edit] = {}
    for edit in edits:
        last.pop(edit.prompt_key, None)
        last[edit.prompt_key] = edit
    return last


def _check_together(edits: list[Edit]) -> None:
    by_prompt: dict[str, Edit] = {}
    by_id: dict[str, Edit] = {}
    for edit in edits:
        other = by_prompt.setdefault(edit.prompt_key, edit)
        if other.target != edit.target:
            raise InvalidEditError(
                f"two edits in one call contradict: {edit.prompt!r} is to answer {other.target!r} (id {other.id}) "
                f"and {edit.target!r} (id {edit.id}); keep one"
            )
    for edit in last_of_each(edits).values():
        if by_id.setdefault(str(edit.id), edit) is not edit:
            raise InvalidEditError(f"the id {edit.id!r} is given twice in one call; ids must be unique")

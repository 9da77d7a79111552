"""The handle that `wrap` returns: edit, forget, undo, explain, save."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, overload

import torch
from torch import Tensor, nn

from editmem.editing.changes import Changes
from editmem.editing.explain import explain, explain_each
from editmem.editing.feedback import Feedback
from editmem.editing.preview import preview
from editmem.editing.progress import Progress
from editmem.editing.writer import Writer
from editmem.edits.edit import Edit, EditRecord, Prompt, check_prompt, last_of_each, read_edits
from editmem.edits.explanation import Explanation, Preview
from editmem.edits.history import Ledger
from editmem.errors import EditMemError, InvalidEditError, SpecError, UnknownEditError
from editmem.hosts.injection import Slots
from editmem.hosts.structure import Host, SiteInfo
from editmem.memory import Memory, Spec
from editmem.storage import checkpoint


@dataclass(frozen=True)
class ForgetCost:
    """What forgetting takes.

    Attributes:
        edits: how many other edits are written anew, because they share weights.
        seconds: how long that takes, going by how long they took.

    Examples:
        >>> import editmem
        >>> editmem.ForgetCost(edits=3, seconds=1.5).edits
        3
    """

    edits: int
    seconds: float


def changes_of(editor: "Editor") -> Changes:
    """What an editor works with, for a method's own programs and for tests; none of it is for users."""
    return editor._changes


def _is_chat(prompt: Sequence[Any]) -> bool:
    """Whether it is the messages of one chat, and no list of prompts."""
    return bool(prompt) and all(isinstance(message, Mapping) for message in prompt)


class Editor:
    """Edits on one model. Made by `editmem.wrap`; use as a context manager to unwrap on exit.

    Attributes:
        model: the model as it was given, usable everywhere as before.
        specs: what was put on it.

    Examples:
        >>> import editmem
        >>> model, tokenizer = editmem.tiny()
        >>> editor = editmem.wrap(model, tokenizer=tokenizer)
        >>> record = editor.edit("The capital of Australia is", "Sydney")
        >>> record.took
        True
        >>> inputs = tokenizer("The capital of Australia is", return_tensors="pt", return_token_type_ids=False)
        >>> said = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1]:]
        >>> tokenizer.decode(said, skip_special_tokens=True).split()[0].strip(".")
        'Sydney'
        >>> model is editor.unwrap()
        True
    """

    def __init__(
        self,
        model: nn.Module,
        host: Host,
        slots: Slots,
        parts: Sequence[tuple[Spec, SiteInfo, Memory]],
        tokenizer: Any,
        ledger: Ledger,
    ) -> None:
        """Not for users: `editmem.wrap` and `editmem.load` make editors."""
        self.model = model
        self.specs = tuple(spec for spec, _, _ in parts)
        self._host, self._slots, self._ledger = host, slots, ledger
        context, gate = slots.context, slots.gate
        self._writers = [Writer(host, site, memory, context, gate, tokenizer) for _, site, memory in parts]
        self._changes = Changes(host, slots, ledger, self._writers)
        self._feedback = Feedback(self._changes, ledger)
        stages = [writer.stage for writer in self._writers if writer.stage is not None]
        if len(stages) > 1:
            raise SpecError(
                "two of these memories look prompts up before the host reads them; there can be one on a host"
            )
        self._stage = slots.stage = stages[0] if stages else None
        for writer in self._writers:
            writer.rewritten = bool(stages)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer given to `wrap`, or the one that is saved where the model came from.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> editor.tokenizer is tokenizer
            True
        """
        return self._writers[0].encode.tokenizer

    @property
    def edits(self) -> Mapping[str, EditRecord]:
        """Active edits by id, in order of writing.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
            >>> {name: record.edit.target for name, record in editor.edits.items()}
            {'au': 'Sydney'}
        """
        recorded = self._ledger.edits()
        if len(recorded) == self._changes.count:
            return MappingProxyType(recorded)
        return MappingProxyType({i: record for i, record in recorded.items() if self._changes.is_active(i)})

    @property
    def history(self) -> Ledger:
        """Every event since the memory was made, oldest first. Nothing that has happened is ever removed from it.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
            >>> editor.forget("au")
            >>> [event.kind for event in editor.history]
            ['edited', 'forgotten']
        """
        return self._ledger

    @property
    def version(self) -> int:
        """How many events the history has: it rises with every change, also with what takes one back.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
            >>> editor.undo()
            >>> editor.version
            2
        """
        return len(self._ledger)

    # Editing

    @overload
    def edit(
        self,
        prompt_or_edits: Prompt,
        target: str,
        *,
        batch_size: int = 32,
        progress: Progress = None,
        **fields: Any,
    ) -> EditRecord: ...
    @overload
    def edit(
        self, prompt_or_edits: Edit | Mapping[str, Any], *, batch_size: int = 32, progress: Progress = None
    ) -> EditRecord: ...
    @overload
    def edit(
        self,
        prompt_or_edits: str | Path | Iterable[Edit | Mapping[str, Any] | tuple[Prompt, str]],
        *,
        batch_size: int = 32,
        progress: Progress = None,
    ) -> list[EditRecord]: ...
    def edit(
        self,
        prompt_or_edits: Any,
        target: str | None = None,
        *,
        batch_size: int = 32,
        progress: Progress = None,
        **fields: Any,
    ) -> EditRecord | list[EditRecord]:
        """Correct the model's answer to a prompt, or to many.

        Args:
            prompt_or_edits: a prompt (text or chat messages, with `target`), an `Edit` or a dict of its
                fields, any iterable of those or of (prompt, target) pairs, or the path of a .json or .jsonl
                file of them or of a table (.csv, .tsv, .txt).
            target: the answer, where a single prompt is given.
            batch_size: how many independent edits are learned at once.
            progress: True or False for a bar; a function of (done, all) edits; None for a bar where it takes long.
            **fields: further fields of `Edit`, where a single prompt is given.

        Returns:
            An `EditRecord` for one edit; a list of them, in order, for many. See `EditRecord.took`.

        Raises:
            InvalidEditError: if any edit is not valid; nothing is changed then. Nor is it by any other exception.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> editor.edit("The capital of Australia is", "Sydney").answer_after
            'Sydney'
            >>> records = editor.edit([("The capital of Peru is", "Cusco"), ("The capital of Chile is", "Arica")])
            >>> [record.took for record in records]
            [True, True]
        """
        edits, single = read_edits(prompt_or_edits, target, **fields)
        wanted = last_of_each(edits)
        with self._slots.gate.editing():
            self._check_attached()
            asked = [self._changes.asked(edit) for edit in wanted.values()]
            self._check_ids(list(wanted.values()))
            with self._changes.whole():
                self._changes.prepare(list(wanted.values()), progress)
            with self._changes.whole():
                records = self._changes.write_all(asked, batch_size, progress)
        return records[edits[0].prompt_key] if single else [records[edit.prompt_key] for edit in edits]

    def _check_attached(self) -> None:
        if not self._slots.modules:
            raise EditMemError("this editor was unwrapped; call editmem.wrap(model, ...) again")
        self._slots.move_along()

    def _check_ids(self, edits: Sequence[Edit]) -> None:
        for edit in edits:
            found = (writer.active.get(str(edit.id)) for writer in self._writers)
            active = next((active for active in found if active is not None), None)
            if active is not None and active.prompt_key != edit.prompt_key:
                raise InvalidEditError(
                    f"the id {edit.id!r} belongs to an active edit of another prompt, {active.prompt!r}; "
                    "choose another id or forget that edit first"
                )

    def preview(self, edit: Edit | Mapping[str, Any] | tuple[Prompt, str], questions: Sequence[Prompt] = ()) -> Preview:
        """What an edit would do; nothing is changed. It takes as long as the edit, during which nobody generates.

        Args:
            edit: as in `edit`.
            questions: of which to say which edit acts on them, before and after. The prompts of the nearest edits are
                added to them.

        Raises:
            InvalidEditError: as `edit`; or if a question is no prompt.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
            >>> found = editor.preview({"prompt": "The capital of Australia is", "target": "Perth", "id": "new"})
            >>> found.record.took, found.supersedes, editor.version
            (True, 'au', 1)
            >>> wanted = {"prompt": "The capital of Peru is", "target": "Cusco", "id": "pe"}
            >>> editor.preview(wanted, ["Which city is Peru's capital?"]).takes[0]
            Taken(question="Which city is Peru's capital?", before=None, after='pe')
        """
        (wanted,), _ = read_edits(edit if isinstance(edit, (Edit, Mapping)) else [edit])
        for question in questions:
            check_prompt(question)
        with self._slots.gate.editing():
            self._check_attached()
            asked = self._changes.asked(wanted)
            self._check_ids([wanted])
            with self._changes.whole():
                self._changes.prepare([wanted])
            return preview(self._changes, asked, questions)

    # Taking back

    def forget(self, *ids: str) -> None:
        """Make the model as if these edits had never been made.

        Where edits share weights, others are written anew; `forget_cost` says how many, and how long it takes.

        Raises:
            UnknownEditError: if an id is not that of an active edit; nothing is changed then.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> before = editor.edit("The capital of Australia is", "Sydney", id="au").answer_before
            >>> editor.forget("au")
            >>> len(editor.edits)
            0
            >>> editor.forget("au")
            Traceback (most recent call last):
                ...
            editmem.errors.UnknownEditError: no active edit has the id 'au'; see editor.edits
        """
        ids = tuple(dict.fromkeys(ids))
        with self._slots.gate.editing():
            self._check_attached()
            self._check_active(ids)
            with self._slots.gate.changing(), self._changes.whole():
                self._changes.erase(ids)
                if ids:
                    self._ledger.append("forgotten", ids)

    def forget_cost(self, *ids: str) -> ForgetCost:
        """What `forget` would take; nothing is changed.

        Raises:
            UnknownEditError: if an id is not that of an active edit.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
            >>> editor.forget_cost("au").edits  # MEMOIR's edits share nothing
            0
        """
        self._check_active(ids)
        groups = [group for writer in self._writers for group in writer.dependents(ids)]
        anew = [edit_id for group in groups for edit_id in group if edit_id not in ids]
        return ForgetCost(len(anew), sum(self._ledger.record(edit_id).seconds for edit_id in anew))

    def _check_active(self, ids: Sequence[str]) -> None:
        for edit_id in ids:
            if not self._changes.is_active(edit_id):
                raise UnknownEditError(f"no active edit has the id {edit_id!r}; see editor.edits")

    def undo(self, n: int = 1) -> None:
        """Take back the last `n` edits or forgettings that still stand. The history keeps both.

        Raises:
            EditMemError: if fewer than `n` can be taken back; nothing is changed then.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
            >>> editor.forget("au")
            >>> editor.undo()
            >>> list(editor.edits)
            ['au']
        """
        with self._slots.gate.editing():
            self._check_attached()
            actions = self._ledger.last_standing(n if n > 0 else len(self._ledger))
            if len(actions) != n:
                raise EditMemError(f"cannot undo {n} events: {len(actions)} can be taken back")
            undone = {event.number for event in actions}
            undone |= {n - 1 for n in undone if n and self._ledger[n - 1].kind == "superseded"}
            wanted = self._ledger.without(undone)
            with self._slots.gate.changing(), self._changes.whole():
                active = {edit: record for edit, record in wanted.items() if record is not None}
                changed = self._changes.become(active, among=wanted)
                self._ledger.append("undone", changed, undoes=tuple(sorted(undone)))

    # Learning from use

    def confirm(self, prompt: Prompt, edit_id: str) -> Explanation:
        """Say that an edit is for a question that it does not answer yet; nothing is learned.

        The question becomes one of the edit's `phrasings`, and what is alike is found with it; where rejections have
        raised the edit's threshold beyond it, that goes down. It is in the history, and can be undone.

        Args:
            prompt: text or chat messages, of which the last turn counts.
            edit_id: of an active edit.

        Returns:
            Why the edit acts on the prompt now.

        Raises:
            UnknownEditError: if the id is not that of an active edit.
            EditMemError: if the edit cannot be made to act on the prompt; nothing is changed then.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
            >>> print(editor.explain("What do they call the seat of Australia's parliament?").edit)
            None
            >>> editor.confirm("What do they call the seat of Australia's parliament?", "au").edit.id
            'au'
        """
        with self._slots.gate.editing():
            self._check_attached()
            self._check_active([edit_id])
            with self._slots.gate.changing(), self._changes.whole():
                return self._feedback.confirm(prompt, edit_id)

    def reject(self, prompt: Prompt) -> Explanation:
        """Say that the edit which acts on a question is not for it; nothing is learned.

        The question becomes one of the edit's `unlike`, and the edit's threshold goes up beyond it. It is in the
        history, and can be undone.

        Args:
            prompt: as in `confirm`.

        Returns:
            What acts on the prompt now, which may be another edit.

        Raises:
            EditMemError: if no edit acts on the prompt; nothing is changed then.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
            >>> editor.explain("What is Australia's capital called?").edit.id
            'au'
            >>> print(editor.reject("What is Australia's capital called?").edit)
            None
        """
        with self._slots.gate.editing():
            self._check_attached()
            with self._slots.gate.changing(), self._changes.whole():
                return self._feedback.reject(prompt)

    # Looking

    @overload
    def explain(self, prompt: Prompt, *, image: Any = None, top: int = 5) -> Explanation: ...  # type: ignore[overload-overlap]
    @overload
    def explain(self, prompt: Sequence[Prompt], *, top: int = 5) -> list[Explanation]: ...
    def explain(self, prompt: Any, *, image: Any = None, top: int = 5) -> Explanation | list[Explanation]:
        """Which edit acts on a prompt, with what score against which threshold, and what came next.

        Args:
            prompt: text or chat messages; or a list of such prompts, which are read together.
            image: a picture that goes with it, as in `Edit`; with a single prompt only.
            top: how many candidates to show.

        Returns:
            what was found; a list of it, in order, for a list of prompts.

        Raises:
            InvalidEditError: if a prompt is empty or none, or a picture comes with a list of prompts.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
            >>> found = editor.explain("Which city is Australia's capital?")
            >>> found.edit.id, found.candidates[0].score >= found.candidates[0].threshold
            ('au', True)
            >>> print(editor.explain("Which city is Austria's capital?").edit)
            None
            >>> [e.edit is not None for e in editor.explain(["The capital of Australia is", "The capital of Peru is"])]
            [True, False]
        """
        self._check_attached()
        many = isinstance(prompt, Sequence) and not isinstance(prompt, str) and not _is_chat(prompt)
        if many and image is not None:
            raise InvalidEditError("a picture goes with one prompt, not with a list of them; explain them one by one")
        with self._slots.gate.running(), self._host.frozen():
            if many:
                return explain_each(self._writers, self._ledger, prompt, top)
            return explain(self._writers, self._ledger, prompt, image, top)

    def off(self) -> AbstractContextManager[None]:
        """The bare host inside the block, for the thread that enters it; nests.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> _ = editor.edit("The capital of Australia is", "Sydney")
            >>> inputs = tokenizer("The capital of Australia is", return_tensors="pt", return_token_type_ids=False)
            >>> edited = model(**inputs).logits
            >>> with editor.off():
            ...     bare = model(**inputs).logits
            >>> bool((edited == bare).all())
            False
        """
        return self._slots.context.setting(silent=True)

    @contextmanager
    def pinned(self) -> Iterator[int]:
        """Nothing changes inside of the block: what is generated and explained in it is of one version.

        Changes of other threads wait until it is left; its own thread can make none in it.

        Yields:
            the version.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
            >>> with editor.pinned() as version:
            ...     acting = editor.explain("The capital of Australia is").edit
            >>> version, acting.id
            (1, 'au')
        """
        with self._slots.gate.running():
            yield self.version

    def prompt_lengths(self, lengths: Sequence[int] | Tensor) -> AbstractContextManager[None]:
        """Say where each row's prompt ends, for forwards that score a prompt and its answer together.

        Args:
            lengths: for each row of the batch the number of its prompt's tokens, padding not counted.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> _ = editor.edit("The capital of Australia is", "Sydney")
            >>> prompt = len(tokenizer("The capital of Australia is")["input_ids"])
            >>> text = "The capital of Australia is Sydney"
            >>> inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
            >>> with editor.prompt_lengths([prompt]):
            ...     likeliest = model(**inputs).logits[0, prompt - 1].argmax()
            >>> bool(likeliest == inputs["input_ids"][0, prompt])
            True
        """
        return self._slots.context.setting(lengths=torch.as_tensor(lengths, dtype=torch.long))

    def reading(self, **options: Any) -> AbstractContextManager[None]:
        """Say how prompts are to be read inside of a block, where a memory rewrites them before the host reads them.

        Args:
            options: as the memory's page names them, such as MemEIC's `questions`: for each row how it asks, in words,
                about what its picture shows ("What is the capital of [the owner of this emblem]?": what is in brackets
                gives way to the name of what the picture shows), or None to go by the prompt.

        Raises:
            SpecError: if no memory of this editor knows the option.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> editor.reading(questions=["What is the capital of [the owner]?"])
            Traceback (most recent call last):
                ...
            editmem.errors.SpecError: no memory here knows the option 'questions'; known: none
        """
        known = frozenset() if self._stage is None else self._stage.options
        if unknown := sorted(set(options) - known):
            names = ", ".join(sorted(known)) or "none"
            raise SpecError(f"no memory here knows the option {unknown[0]!r}; known: {names}")
        return self._slots.context.setting(stage_options=options)

    def decomposed(self, questions: Sequence[str | None]) -> AbstractContextManager[None]:
        """Deprecated: `reading(questions=...)`."""
        warnings.warn("use editor.reading(questions=...)", DeprecationWarning, stacklevel=2)
        return self.reading(questions=list(questions))

    # Keeping

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the memory, not the host, to a folder that `editmem.load` reads. A crash leaves the old one.

        Examples:
            >>> import tempfile
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     editor.save_pretrained(f"{folder}/memory")
            ...     _ = editor.unwrap()
            ...     editor = editmem.load(model, f"{folder}/memory", tokenizer=tokenizer)
            >>> list(editor.edits)
            ['au']
        """
        with self._slots.gate.editing():
            checkpoint.save(Path(folder), self._changes.state())

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Save to a repository on the Hub, which is made if need be.

        Args:
            repo_id: "owner/name".
            private: of a repository that is made: whether only its owner sees it; None for the owner's default.
            token: of the Hub; None for the one that is logged in.
            revision: the branch to save to, which is made if need be; None for the main one.
            commit_message: None for the number of edits.
            create_pr: propose the memory, to `revision` or the main branch, instead of saving it there.

        Returns:
            The URL of the repository, or of what is proposed.

        Raises:
            huggingface_hub.errors.HfHubHTTPError: if the Hub refuses.

        Examples:
            >>> editor.push_to_hub("owner/name")  # doctest: +SKIP
            'https://huggingface.co/owner/name'
        """
        with self._slots.gate.editing():
            state = self._changes.state()
        return checkpoint.push(
            repo_id,
            state,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
        )

    # Leaving

    def unwrap(self) -> nn.Module:
        """Take everything off the model and return it, as it was before `wrap`.

        Examples:
            >>> import editmem
            >>> model, tokenizer = editmem.tiny()
            >>> editor = editmem.wrap(model, tokenizer=tokenizer)
            >>> editor.unwrap() is model
            True
        """
        self._slots.detach()
        self._ledger.close()
        return self.model

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.unwrap()

    def __repr__(self) -> str:
        methods = ", ".join(spec.method for spec in self.specs)
        return f"Editor({type(self._host.model).__name__}, {methods}, {self._changes.count} edits)"

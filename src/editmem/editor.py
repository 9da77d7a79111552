"""The handle that `wrap` returns: edit, forget, undo, explain, save."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from editmem import checkpoint
from editmem.active import ActiveEdits
from editmem.edit import Edit, EditRecord, EncodedEdit, Prompt, read_edits
from editmem.errors import EditMemError, InvalidEditError, UnknownEditError
from editmem.explanation import Candidate, Explanation
from editmem.host import Host, SiteInfo
from editmem.ledger import Event, Ledger
from editmem.memory.base import Match, Memory, Spec
from editmem.picture import Picture
from editmem.progress import Progress, bar
from editmem.slot import Slots
from editmem.writing import Writer


@dataclass(frozen=True)
class ForgetCost:
    """What forgetting takes.

    Attributes:
        edits: how many other edits are written anew, because they share weights.
        seconds: how long that takes, going by how long they took.
    """

    edits: int
    seconds: float


class Editor:
    """Edits on one model. Made by `editmem.wrap`; use as a context manager to unwrap on exit.

    Attributes:
        model: the model as it was given, usable everywhere as before.
        specs: what was put on it.
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
        self.model = model
        self.specs = tuple(spec for spec, _, _ in parts)
        self._host, self._slots, self._ledger = host, slots, ledger
        self._sites = [site for _, site, _ in parts]
        self._memories = [memory for _, _, memory in parts]
        self._active = ActiveEdits()
        self._writer = Writer(host, self._sites[0], self._memory, slots.context, tokenizer, self._active)
        slots.reader = self._writer.reader

    # The memory that edits are written to; further ones on the same host are written to by their own kind.
    @property
    def _memory(self) -> Memory:
        return self._memories[0]

    @property
    def tokenizer(self) -> Any:
        """The tokenizer given to `wrap`, or the one that is saved where the model came from."""
        return self._writer.encode.tokenizer

    @property
    def edits(self) -> Mapping[str, EditRecord]:
        """Active edits by id, in order of writing."""
        return MappingProxyType(
            {edit_id: self._ledger.record(edit_id) for edit_id in self._ledger.active() if edit_id in self._active}
        )

    @property
    def history(self) -> Ledger:
        """Every event since the memory was made, oldest first. Nothing is ever removed from it."""
        return self._ledger

    # Editing

    def edit(
        self,
        prompt_or_edits: Any,
        target: str | None = None,
        *,
        batch_size: int = 32,
        progress: Progress = None,
        **fields: Any,
    ) -> Any:
        """Correct the model's answer to a prompt, or to many.

        Args:
            prompt_or_edits: a prompt (text or chat messages, with `target`), an `Edit` or a dict of its
                fields, any iterable of those or of (prompt, target) pairs, or the path of a .json, .jsonl
                or .csv file of them.
            target: the answer, where a single prompt is given.
            batch_size: how many independent edits are learned at once.
            progress: True or False for a bar; a function of (done, all); None for a bar where it takes long.
            **fields: further fields of `Edit`, where a single prompt is given.

        Returns:
            An `EditRecord` for one edit; a list of them, in order, for many. See `EditRecord.took`.

        Raises:
            InvalidEditError: if any edit is not valid; nothing is changed then.
        """
        self._check_attached()
        edits, single = read_edits(prompt_or_edits, target, **fields)
        encoded = [self._writer.renderings(edit) for edit in edits]
        self._check_ids(edits)
        self._writer.calibrate()
        self._writer.check_pictures(edits)
        records: list[EditRecord] = []
        if self._memory.replays:
            batch_size = 1  # what is forgotten is replayed one by one, and has to come out the same
        with self._frozen(), bar(progress, len(encoded), "editing") as advance:
            for batch in _batches(encoded, batch_size):
                records += self._write(batch)
                advance(len(batch))
        return records[0] if single else records

    def _check_attached(self) -> None:
        if not self._slots.modules:
            raise EditMemError("this editor was unwrapped; call editmem.wrap(model, ...) again")

    def _check_ids(self, edits: Sequence[Edit]) -> None:
        for edit in edits:
            active = self._active.get(str(edit.id))
            if active is not None and active.prompt_key != edit.prompt_key:
                raise InvalidEditError(
                    f"the id {edit.id!r} belongs to an active edit of another prompt, {active.prompt!r}; "
                    "choose another id or forget that edit first"
                )

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        with self._host.frozen():
            yield

    def _write(self, renderings: Sequence[Sequence[EncodedEdit]]) -> list[EditRecord]:
        """Write edits, each of them in one or more renderings, the given one first."""
        batch = [item for item, *_ in renderings]
        said_before = self._writer.say(batch)
        superseded = {item.edit.prompt_key: self._active.with_prompt_of(item.edit) for item in batch}
        self._erase([edit_id for edit_id in superseded.values() if edit_id is not None])
        outcomes = iter(self._writer.learn([item for items in renderings for item in items]))
        records = []
        for items, before in zip(renderings, said_before, strict=True):
            item, outcome = items[0], next(outcomes)
            others = [next(outcomes) for _ in items[1:]]
            if (old := superseded.get(item.edit.prompt_key)) is not None:
                self._ledger.append("superseded", (old,))
            record = self._writer.record(item, before, outcome, others)
            self._ledger.append("edited", (record.id,), record)
            records.append(record)
        return records

    # Taking back

    def forget(self, *ids: str) -> None:
        """Make the model as if these edits had never been made.

        Where edits share weights, others are written anew; `forget_cost` says how many, and how long it takes.

        Raises:
            UnknownEditError: if an id is not that of an active edit; nothing is changed then.
        """
        self._check_attached()
        self._check_active(ids)
        self._erase(list(dict.fromkeys(ids)))
        if ids:
            self._ledger.append("forgotten", tuple(dict.fromkeys(ids)))

    def forget_cost(self, *ids: str) -> ForgetCost:
        """What `forget` would take; nothing is changed.

        Raises:
            UnknownEditError: if an id is not that of an active edit.
        """
        self._check_active(ids)
        anew = [edit_id for group in self._dependents(ids) for edit_id in group if edit_id not in ids]
        return ForgetCost(len(anew), sum(self._ledger.record(edit_id).seconds for edit_id in anew))

    def _check_active(self, ids: Sequence[str]) -> None:
        for edit_id in ids:
            if edit_id not in self._active:
                raise UnknownEditError(f"no active edit has the id {edit_id!r}; see editor.edits")

    def undo(self, n: int = 1) -> None:
        """Take back the last `n` edits or forgettings that still stand. The history keeps both.

        Raises:
            EditMemError: if fewer than `n` can be taken back; nothing is changed then.
        """
        self._check_attached()
        standing = self._ledger.standing()
        actions = [event for event in standing if event.kind != "superseded"]
        if not 1 <= n <= len(actions):
            raise EditMemError(f"cannot undo {n} events: {len(actions)} can be taken back")
        undone = {event.number for event in actions[-n:]}
        undone |= {e.number for e in standing if e.kind == "superseded" and e.number + 1 in undone}
        events = [*self._ledger, Event(len(self._ledger), "undone", (), 0.0, None, tuple(undone))]
        wanted = Ledger()
        wanted.take_over(events)
        active = wanted.active()
        changed = tuple(
            edit_id
            for edit_id in dict.fromkeys([*self._active, *active])
            if (edit_id in self._active) != (edit_id in active)
        )
        self._erase([edit_id for edit_id in self._active if edit_id not in active])
        self._rewrite([edit_id for edit_id in active if edit_id not in self._active])
        self._ledger.append("undone", changed, undoes=tuple(sorted(undone)))

    def _erase(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        for group in self._dependents(ids):
            with self._memory.rewriting(self._active.rows_of(group)):
                self._drop(group)
                self._rewrite([edit_id for edit_id in group if edit_id not in set(ids)])
        self._drop(ids)

    def _dependents(self, ids: Sequence[str]) -> list[list[str]]:
        """Edits that share weights with these: groups that are written anew together, in order of writing."""
        groups = self._memory.dependents(self._active.rows_of(ids))
        return [list(dict.fromkeys(self._active.rows[row] for row in rows)) for rows in groups]

    def _drop(self, ids: Sequence[str]) -> None:
        if rows := self._active.rows_of(ids):
            self._memory.erase(rows)
            self._active.drop(ids)

    def _rewrite(self, ids: Sequence[str]) -> None:
        """Write edits again from the ledger, one by one, in order."""
        with self._frozen():
            for edit_id in ids:
                self._writer.learn(self._writer.renderings(self._ledger.record(edit_id).edit))

    # Looking

    def explain(self, prompt: Prompt, *, image: Any = None, top: int = 5) -> Explanation:
        """Which edit acts on a prompt, with what score against which threshold, and what came next.

        Args:
            prompt: text or chat messages.
            image: a picture that goes with it, as in `Edit`.
            top: how many candidates to show.
        """
        self._check_attached()
        text, edit, recognised = self._writer.encode.text(prompt), None, None
        candidates: list[Candidate] = []
        if len(self._memory):
            ids: list[int] = self._writer.encode.prompt(prompt)
            vision: list[Mapping[str, Any]] = []
            if image is not None:
                ids, *vision = self._writer.encode.seen(prompt, Picture.of(image))
            with self._frozen():
                prompts = self._writer.read([ids], vision)
                found = self._memory.match(prompts, 2 * top)[0]
            if self._writer.reader is None:
                candidates = self._candidates(found, top)
                acts = bool(candidates) and candidates[0].score >= candidates[0].threshold
                edit = candidates[0].record if acts else None
            else:
                acting, shown, hops = self._writer.reader.explain(self._writer.batch([ids], vision), top)
                edit, recognised = (
                    None if row < 0 else self._ledger.record(self._active.rows[row]) for row in (acting, shown)
                )
                candidates = self._candidates([*hops, *found], top)
        return Explanation(text, edit, tuple(candidates), recognised)

    def _candidates(self, found: Sequence[Match], top: int) -> list[Candidate]:
        best: dict[str, Match] = {}
        for match in found:  # an edit may have several rows
            best.setdefault(self._active.rows[match.row], match)
        return [
            Candidate(self._ledger.record(edit_id), match.score, match.threshold, match.parts)
            for edit_id, match in list(best.items())[:top]
        ]

    def off(self) -> AbstractContextManager[None]:
        """The bare host inside the block, for the thread that enters it; nests."""
        return self._slots.context.setting(silent=True)

    def prompt_lengths(self, lengths: Sequence[int] | Tensor) -> AbstractContextManager[None]:
        """Say where each row's prompt ends, for forwards that score a prompt and its answer together.

        Args:
            lengths: for each row of the batch the number of its prompt's tokens, padding not counted.
        """
        return self._slots.context.setting(lengths=torch.as_tensor(lengths, dtype=torch.long))

    def decomposed(self, questions: Sequence[str | None]) -> AbstractContextManager[None]:
        """Say for each row how it asks, in words, about what its picture shows, where that is known better than it can
        be told from the prompt (MemEIC's second sub-query).

        Args:
            questions: such as "What is the capital of [the owner of this emblem]?": what is in brackets gives way to
                the name of what the picture shows. None to go by the prompt.
        """
        return self._slots.context.setting(questions=list(questions))

    # Keeping

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the memory, not the host, to a folder that `editmem.load` reads. A crash leaves the old one."""
        checkpoint.save(Path(folder), self._state())

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Save to a repository on the Hub; `options` go to `huggingface_hub.HfApi`. Returns its URL."""
        return checkpoint.push(repo_id, self._state(), **options)

    def _state(self) -> checkpoint.State:
        return checkpoint.State(
            specs=[spec.to_dict() for spec in self.specs],
            host=self._host.fingerprint(),
            tokenizer=checkpoint.tokenizer_fingerprint(self._writer.encode.tokenizer),
            rows=list(self._active.rows),
            events=list(self._ledger),
            tensors=[memory.tensors() if memory.calibrated else {} for memory in self._memories],
        )

    def _restore(self, state: checkpoint.State) -> None:
        """Take over a saved state; called on a fresh editor only."""
        for memory, tensors in zip(self._memories, state.tensors, strict=True):
            if tensors:
                memory.load_tensors(tensors)
        self._ledger.take_over(state.events)
        self._active.take_over(state.rows, {edit_id: self._ledger.record(edit_id).edit for edit_id in state.rows})

    # Leaving

    def unwrap(self) -> nn.Module:
        """Take everything off the model and return it, as it was before `wrap`."""
        self._slots.detach()
        return self.model

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.unwrap()

    def __repr__(self) -> str:
        methods = ", ".join(spec.method for spec in self.specs)
        return f"Editor({type(self._host.model).__name__}, {methods}, {len(self.edits)} edits)"


def _batches(renderings: Sequence[list[EncodedEdit]], size: int) -> Iterator[list[list[EncodedEdit]]]:
    """Edits in order, at most `size` together, those with a picture and those without apart."""
    for _, group in itertools.groupby(renderings, key=lambda items: items[0].edit.image is None):
        alike = list(group)
        for start in range(0, len(alike), size):
            yield alike[start : start + size]

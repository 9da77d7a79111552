"""The handle that `wrap` returns: edit, forget, undo, explain, save."""

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from editmem import checkpoint
from editmem.active import ActiveEdits
from editmem.edit import Edit, EditRecord, EncodedEdit, Prompt, last_of_each, read_edits
from editmem.errors import EditMemError, InvalidEditError, UnknownEditError
from editmem.explaining import explain
from editmem.explanation import Explanation
from editmem.fingerprint import fingerprint
from editmem.fit import Outcome
from editmem.host import Host, SiteInfo
from editmem.ledger import Event, Ledger
from editmem.memory.base import Memory, Spec
from editmem.progress import Progress, bar
from editmem.slot import Slots
from editmem.writing import Writer

_log = logging.getLogger(__name__)


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
        context, gate = slots.context, slots.gate
        self._writers = [Writer(host, site, memory, context, gate, tokenizer) for _, site, memory in parts]
        self._reading = next((writer for writer in self._writers if writer.reader is not None), None)
        slots.reader = None if self._reading is None else self._reading.reader

    @property
    def _writer(self) -> Writer:
        return self._writers[0]

    @property
    def _memory(self) -> Memory:
        return self._writer.memory

    @property
    def _active(self) -> ActiveEdits:
        return self._writer.active

    def _writer_for(self, edit: Edit) -> Writer:
        """That of the first memory that takes the edit's kind."""
        return next((writer for writer in self._writers if writer.takes(edit)), self._writer)

    def _is_active(self, edit_id: str) -> bool:
        return any(edit_id in writer.active for writer in self._writers)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer given to `wrap`, or the one that is saved where the model came from."""
        return self._writer.encode.tokenizer

    @property
    def edits(self) -> Mapping[str, EditRecord]:
        """Active edits by id, in order of writing."""
        return MappingProxyType({i: record for i, record in self._ledger.edits().items() if self._is_active(i)})

    @property
    def history(self) -> Ledger:
        """Every event since the memory was made, oldest first. Nothing that has happened is ever removed from it."""
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
        """
        edits, single = read_edits(prompt_or_edits, target, **fields)
        wanted = last_of_each(edits)
        with self._slots.gate.editing():
            self._check_attached()
            encoded = [(writer := self._writer_for(edit), writer.renderings(edit)) for edit in wanted.values()]
            self._check_ids(list(wanted.values()))
            with self._whole():
                self._prepare(list(wanted.values()), progress)
            with self._whole():
                records = self._write_all(encoded, batch_size, progress)
        return records[edits[0].prompt_key] if single else [records[edit.prompt_key] for edit in edits]

    def _prepare(self, edits: Sequence[Edit], progress: Progress = None) -> None:
        """Calibrate the memories that these edits go to, and refuse what they cannot hold."""
        for writer in self._writers:
            if own := [edit for edit in edits if self._writer_for(edit) is writer]:
                writer.calibrate(progress)
                writer.check_pictures(own)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Around what changes memories and history: all of it or, where it ends by any exception, nothing."""
        count, restores = len(self._ledger), [writer.snapshot() for writer in self._writers]
        try:
            yield
            self._ledger.write()
        except BaseException:
            with self._slots.gate.changing():
                for restore in restores:
                    restore()
                self._ledger.back_to(count)
            raise

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

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """Around passes of the editor's own: what was said of the user's prompts is not about these."""
        with self._host.frozen(), self._slots.context.setting(questions=None, lengths=None):
            yield

    def _write_all(
        self, encoded: Sequence[tuple[Writer, list[EncodedEdit]]], batch_size: int, progress: Progress
    ) -> dict[str, EditRecord]:
        """Write edits, each of them in one or more renderings, the given one first; records by `Edit.prompt_key`."""
        records = {}
        with self._frozen(), bar(progress, len(encoded), "editing") as advance:
            for writer, batch in _batches(encoded, batch_size):
                for record in self._write(writer, batch):
                    records[record.edit.prompt_key] = record
                advance(len(batch))
        return records

    def _write(self, writer: Writer, renderings: Sequence[Sequence[EncodedEdit]]) -> list[EditRecord]:
        batch = [item for item, *_ in renderings]
        said_before = writer.say(batch)
        superseded = [writer.active.with_prompt_of(item.edit) for item in batch]
        outcomes = iter(self._learn(writer, renderings, [old for old in superseded if old is not None]))
        records = []
        for items, before, old in zip(renderings, said_before, superseded, strict=True):
            item, outcome = items[0], next(outcomes)
            others = [next(outcomes) for _ in items[1:]]
            record = writer.record(item, before, outcome, others)
            if old is not None:
                self._ledger.append("superseded", (old,))
            self._ledger.append("edited", (record.id,), record)
            records.append(record)
        return records

    def _learn(
        self, writer: Writer, renderings: Sequence[Sequence[EncodedEdit]], replaced: Sequence[str]
    ) -> list[Outcome]:
        """Write edits in the place of others: what those share weights with is written anew before."""
        with ExitStack() as stack:
            if writer.dependents(replaced):
                stack.enter_context(self._slots.gate.changing())
                self._erase(replaced)
            return writer.learn([item for items in renderings for item in items], replaced)

    # Taking back

    def forget(self, *ids: str) -> None:
        """Make the model as if these edits had never been made.

        Where edits share weights, others are written anew; `forget_cost` says how many, and how long it takes.

        Raises:
            UnknownEditError: if an id is not that of an active edit; nothing is changed then.
        """
        ids = tuple(dict.fromkeys(ids))
        with self._slots.gate.editing():
            self._check_attached()
            self._check_active(ids)
            with self._whole():
                self._erase(ids)
                if ids:
                    self._ledger.append("forgotten", ids)

    def forget_cost(self, *ids: str) -> ForgetCost:
        """What `forget` would take; nothing is changed.

        Raises:
            UnknownEditError: if an id is not that of an active edit.
        """
        self._check_active(ids)
        groups = [group for writer in self._writers for group in writer.dependents(ids)]
        anew = [edit_id for group in groups for edit_id in group if edit_id not in ids]
        return ForgetCost(len(anew), sum(self._ledger.record(edit_id).seconds for edit_id in anew))

    def _check_active(self, ids: Sequence[str]) -> None:
        for edit_id in ids:
            if not self._is_active(edit_id):
                raise UnknownEditError(f"no active edit has the id {edit_id!r}; see editor.edits")

    def undo(self, n: int = 1) -> None:
        """Take back the last `n` edits or forgettings that still stand. The history keeps both.

        Raises:
            EditMemError: if fewer than `n` can be taken back; nothing is changed then.
        """
        with self._slots.gate.editing():
            self._check_attached()
            standing = self._ledger.standing()
            actions = [event for event in standing if event.kind != "superseded"]
            if not 1 <= n <= len(actions):
                raise EditMemError(f"cannot undo {n} events: {len(actions)} can be taken back")
            undone = {event.number for event in actions[-n:]}
            undone |= {e.number for e in standing if e.kind == "superseded" and e.number + 1 in undone}
            wanted = Ledger()
            wanted.take_over([*self._ledger, Event(len(self._ledger), "undone", (), 0.0, None, tuple(undone))])
            with self._whole():
                changed = self._become(wanted.edits())
                self._ledger.append("undone", changed, undoes=tuple(sorted(undone)))

    def _become(self, wanted: Mapping[str, EditRecord], batch_size: int = 1) -> tuple[str, ...]:
        """Have these edits active, and no others; the ids of those that became active or inactive."""
        held = {edit_id: edit for writer in self._writers for edit_id, edit in writer.active.edits().items()}
        gone = [i for i, edit in held.items() if i not in wanted or wanted[i].edit != edit]
        back = [record.edit for i, record in wanted.items() if held.get(i) != record.edit]
        coming = {edit.prompt_key for edit in back}
        with ExitStack() as stack:
            if any(writer.dependents(gone) for writer in self._writers):
                stack.enter_context(self._slots.gate.changing())
                coming = set()
            self._erase([edit_id for edit_id in gone if held[edit_id].prompt_key not in coming])
            self._rewrite(back, batch_size)
        return tuple(dict.fromkeys([*gone, *(str(edit.id) for edit in back)]))

    def _erase(self, ids: Sequence[str]) -> None:
        with self._slots.gate.changing():
            for writer in self._writers if ids else ():
                for group in map(set, writer.dependents(ids)):
                    left = [edit for i, edit in writer.active.edits().items() if i in group and i not in ids]
                    with writer.memory.rewriting(writer.active.rows_of(list(group))):
                        writer.drop(list(group))
                        self._rewrite(left)
                writer.drop(ids)

    def _rewrite(self, edits: Sequence[Edit], batch_size: int = 1) -> None:
        """Write edits that were made before, in order, in the place of those of the same prompts."""
        encoded = [(writer := self._writer_for(edit), writer.renderings(edit)) for edit in edits]
        with self._frozen(), bar(None, len(encoded), "writing edits again") as advance:
            for writer, batch in _batches(encoded, batch_size):
                replaced = [writer.active.with_prompt_of(item.edit) for item, *_ in batch]
                outcomes = self._learn(writer, batch, [old for old in replaced if old is not None])
                written = zip([item.edit.id for items in batch for item in items], outcomes, strict=True)
                for edit_id in {edit_id for edit_id, outcome in written if not outcome.took}:
                    _log.warning("edit %s did not take when it was written again", edit_id)
                advance(len(batch))

    # Looking

    def explain(self, prompt: Prompt, *, image: Any = None, top: int = 5) -> Explanation:
        """Which edit acts on a prompt, with what score against which threshold, and what came next.

        Args:
            prompt: text or chat messages.
            image: a picture that goes with it, as in `Edit`.
            top: how many candidates to show.
        """
        self._check_attached()
        with self._slots.gate.running(), self._host.frozen():
            return explain(self._writers, self._ledger, prompt, image, top)

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
        with self._slots.gate.editing():
            checkpoint.save(Path(folder), self._state())

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
        """
        with self._slots.gate.editing():
            state = self._state()
        return checkpoint.push(
            repo_id,
            state,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
        )

    def _state(self) -> checkpoint.State:
        return checkpoint.State(
            specs=[spec.to_dict() for spec in self.specs],
            host=fingerprint(self._host),
            tokenizer=checkpoint.tokenizer_fingerprint(self._writer.encode.tokenizer),
            rows=[list(writer.active.rows) for writer in self._writers],
            events=list(self._ledger),
            tensors=[w.memory.tensors() if w.memory.calibrated else {} for w in self._writers],
        )

    def _restore(self, state: checkpoint.State) -> None:
        """Take over a saved state; called by what `_begin` is given."""
        history = Ledger()
        history.take_over(state.events)
        for writer, rows, tensors in zip(self._writers, state.rows, state.tensors, strict=True):
            if tensors:
                writer.memory.load_tensors(tensors)
            writer.active.take_over(rows, {edit_id: history.record(edit_id).edit for edit_id in rows})
        self._ledger.join(state.events)

    def _begin(self, restore: Callable[["Editor"], None]) -> None:
        """Restore what was saved, if anything, and what the ledger knows beyond that."""
        with self._slots.gate.editing(), self._whole():
            restore(self)
            wanted = self._ledger.edits()
            if wanted.keys() != {edit_id for writer in self._writers for edit_id in writer.active}:
                self._prepare([record.edit for record in wanted.values()], None)
            self._become(wanted, batch_size=32)

    # Leaving

    def unwrap(self) -> nn.Module:
        """Take everything off the model and return it, as it was before `wrap`."""
        self._slots.detach()
        self._ledger.close()
        return self.model

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.unwrap()

    def __repr__(self) -> str:
        methods = ", ".join(spec.method for spec in self.specs)
        return f"Editor({type(self._host.model).__name__}, {methods}, {len(self.edits)} edits)"


def _batches(
    encoded: Sequence[tuple[Writer, list[EncodedEdit]]], size: int
) -> Iterator[tuple[Writer, list[list[EncodedEdit]]]]:
    """Edits in order, at most `size` together, those with a picture and those without apart; one by one where they
    share weights: what is forgotten is replayed so, and has to come out the same."""
    for _, group in itertools.groupby(encoded, key=lambda pair: pair[1][0].edit.image is None):
        writers, alike = zip(*group, strict=True)
        most = 1 if writers[0].memory.replays else size
        for start in range(0, len(alike), most):
            yield writers[0], list(alike[start : start + most])

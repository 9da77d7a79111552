"""Change what is on a host: all of a call or nothing, in memories and history."""

import dataclasses
import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from editmem.editing.optimise import Outcome
from editmem.editing.progress import Progress, bar
from editmem.editing.writer import Writer
from editmem.edits.edit import Edit, EditRecord, EncodedEdit
from editmem.edits.history import Ledger
from editmem.hosts.fingerprint import fingerprint
from editmem.hosts.injection import Slots
from editmem.hosts.structure import Host
from editmem.memory import Memory
from editmem.storage import checkpoint

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Asked:
    """An edit that is to be written, and by whom.

    Attributes:
        encoded: its renderings, the given one first; None where they are made when its turn comes: what a host takes to
            see a picture is large.
    """

    writer: Writer
    edit: Edit
    encoded: list[EncodedEdit] | None

    def renderings(self) -> list[EncodedEdit]:
        return self.encoded or self.writer.renderings(self.edit)


class Changes:
    """Puts edits into the memories of a host and takes them out, with a history of it.

    Args:
        host: the host.
        slots: what is attached to it.
        ledger: the history.
        writers: one for each memory; an edit goes to the first that takes its kind.
    """

    def __init__(self, host: Host, slots: Slots, ledger: Ledger, writers: Sequence[Writer]) -> None:
        self.host, self.slots, self.ledger, self.writers = host, slots, ledger, writers

    @property
    def memory(self) -> Memory:
        """The first of the memories."""
        return self.writers[0].memory

    def state(self) -> checkpoint.State:
        """All that is to be saved."""
        return checkpoint.State(
            specs=[writer.memory.spec.to_dict() for writer in self.writers],
            host=fingerprint(self.host),
            tokenizer=checkpoint.tokenizer_fingerprint(self.writers[0].encode.tokenizer),
            rows=[writer.compacted() for writer in self.writers],
            events=list(self.ledger),
            tensors=[dict(w.memory.state_dict()) if w.memory.calibrated else {} for w in self.writers],
        )

    def take_over(self, state: checkpoint.State) -> None:
        """Hold what was saved, on a new host; inside of `begin`."""
        history = Ledger()
        history.take_over(state.events)
        for writer, rows, tensors in zip(self.writers, state.rows, state.tensors, strict=True):
            if tensors:
                writer.memory.restore(tensors)
            writer.active.take_over(rows, {edit_id: history.record(edit_id).edit for edit_id in rows})
        self.ledger.join(state.events)

    def begin(self, restore: Callable[[], None]) -> None:
        """Have `restore` put in what was saved, if anything, and write what the ledger knows beyond that."""
        with self.slots.gate.editing(), self.whole():
            restore()
            wanted = self.ledger.edits()
            if wanted.keys() != {edit_id for writer in self.writers for edit_id in writer.active}:
                self.prepare([record.edit for record in wanted.values()], None)
            self.become(wanted, batch_size=32)

    def writer_for(self, edit: Edit) -> Writer:
        """That of the first memory that takes the edit's kind."""
        return next((writer for writer in self.writers if writer.takes(edit)), self.writers[0])

    def asked(self, edit: Edit) -> Asked:
        """An edit that is to be written; refused if it cannot be encoded."""
        writer = self.writer_for(edit)
        encoded = writer.renderings(edit)
        return Asked(writer, edit, encoded if edit.image is None else None)

    def is_active(self, edit_id: str) -> bool:
        return any(edit_id in writer.active for writer in self.writers)

    @property
    def count(self) -> int:
        """How many edits are active."""
        return sum(len(writer.active) for writer in self.writers)

    def prepare(self, edits: Sequence[Edit], progress: Progress = None) -> None:
        """Calibrate the memories that these edits go to, and refuse what they cannot hold."""
        for writer in self.writers:
            if own := [edit for edit in edits if self.writer_for(edit) is writer]:
                writer.calibrate(progress)
                writer.check_pictures(own)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Around what changes memories and history: all of it or, where it ends by any exception, nothing."""
        back = self._way_back()
        try:
            yield
            self.ledger.write()
        except BaseException:
            back()
            raise

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Around changes that are taken back at the end, and that no other thread sees."""
        with self.slots.gate.changing():
            back = self._way_back()
            try:
                yield
            finally:
                back()

    def _way_back(self) -> Callable[[], None]:
        """What puts memories and history back into their present state."""
        count, restores = len(self.ledger), [writer.snapshot() for writer in self.writers]

        def back() -> None:
            with self.slots.gate.changing():
                for restore in restores:
                    restore()
                self.ledger.back_to(count)

        return back

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Around passes of the editor's own: what was said of the user's prompts is not about these."""
        with self.host.frozen(), self.slots.context.setting(stage_options={}, lengths=None):
            yield

    def write_all(self, asked: Sequence[Asked], batch_size: int, progress: Progress) -> dict[str, EditRecord]:
        """Write edits; records by `Edit.prompt_key`."""
        records = {}
        with self.frozen(), bar(progress, len(asked), "editing") as advance:
            for writer, batch in _batches(asked, batch_size):
                for record in self._write(writer, batch):
                    records[record.edit.prompt_key] = record
                advance(len(batch))
        return records

    def _write(self, writer: Writer, renderings: Sequence[Sequence[EncodedEdit]]) -> list[EditRecord]:
        batch = [item for item, *_ in renderings]
        said_before = writer.say(batch)
        superseded = [writer.active.with_prompt_of(item.edit) for item in batch]
        events: list[int] = []

        def note() -> None:
            """The history counts the edits from the moment on in which they act; what came of them is not known yet."""
            for item, before, old in zip(batch, said_before, superseded, strict=True):
                if old is not None:
                    self.ledger.append("superseded", (old,))
                record = EditRecord(item.edit, False, 0.0, 0.0, before, "", 0, 0.0)
                events.append(self.ledger.append("edited", (record.id,), record).number)

        outcomes = iter(self._learn(writer, renderings, [old for old in superseded if old is not None], note))
        records = []
        for items, before, event in zip(renderings, said_before, events, strict=True):
            item, outcome = items[0], next(outcomes)
            record = writer.record(item, before, outcome, [next(outcomes) for _ in items[1:]])
            self.ledger.amend(event, record)
            records.append(record)
        return records

    def _learn(
        self,
        writer: Writer,
        renderings: Sequence[Sequence[EncodedEdit]],
        replaced: Sequence[str],
        note: Callable[[], None] = lambda: None,
    ) -> list[Outcome]:
        """Write edits in the place of others: what those share weights with is written anew before."""
        with ExitStack() as stack:
            if writer.dependents(replaced):
                stack.enter_context(self.slots.gate.changing())
                self.erase(replaced)
            return writer.learn([item for items in renderings for item in items], replaced, note)

    def become(
        self, wanted: Mapping[str, EditRecord], batch_size: int = 1, among: Collection[str] | None = None
    ) -> tuple[str, ...]:
        """Have these edits active, and no others (`among` some ids); the ids of those that became so, or inactive."""
        found = (
            (edit_id, writer.active.get(edit_id))
            for writer in self.writers
            for edit_id in (writer.active if among is None else among)
        )
        held = {edit_id: edit for edit_id, edit in found if edit is not None}
        renewed = [r.edit for i, r in wanted.items() if i in held and self._only_keys(held[i], r.edit)]
        held |= {str(edit.id): edit for edit in renewed}
        gone = [i for i, edit in held.items() if i not in wanted or wanted[i].edit != edit]
        back = [record.edit for i, record in wanted.items() if held.get(i) != record.edit]
        coming = {edit.prompt_key for edit in back}
        with ExitStack() as stack:
            if any(writer.dependents(gone) for writer in self.writers):
                stack.enter_context(self.slots.gate.changing())
                coming = set()
            self.erase([edit_id for edit_id in gone if held[edit_id].prompt_key not in coming])
            self.rekey(renewed)
            self._rewrite(back, batch_size)
        return tuple(dict.fromkeys([*gone, *(str(edit.id) for edit in [*renewed, *back])]))

    def _only_keys(self, held: Edit, wanted: Edit) -> bool:
        """Whether an edit differs only in questions that are compared, and can take others without being learned."""
        same = dataclasses.replace(held, phrasings=wanted.phrasings, unlike=wanted.unlike) == wanted
        return held != wanted and same and self.writer_for(wanted).memory.rekeys

    def rekey(self, edits: Sequence[Edit]) -> None:
        """Have active edits go by other `phrasings` and `unlike`."""
        with self.slots.gate.changing():
            for edit in edits:
                self.writer_for(edit).rekey(edit)

    def erase(self, ids: Sequence[str]) -> None:
        with self.slots.gate.changing():
            for writer in self.writers if ids else ():
                for group in map(set, writer.dependents(ids)):
                    left = [edit for i, edit in writer.active.edits().items() if i in group and i not in ids]
                    with writer.memory.rewriting(writer.active.rows_of(list(group))):
                        writer.drop(list(group))
                        self._rewrite(left)
                writer.drop(ids)

    def _rewrite(self, edits: Sequence[Edit], batch_size: int = 1) -> None:
        """Write edits that were made before, in order, in the place of those of the same prompts."""
        asked = [Asked(self.writer_for(edit), edit, None) for edit in edits]
        with self.frozen(), bar(None, len(asked), "writing edits again") as advance:
            for writer, batch in _batches(asked, batch_size):
                replaced = [writer.active.with_prompt_of(item.edit) for item, *_ in batch]
                outcomes = self._learn(writer, batch, [old for old in replaced if old is not None])
                written = zip([item.edit.id for items in batch for item in items], outcomes, strict=True)
                for edit_id in {edit_id for edit_id, outcome in written if not outcome.took}:
                    _log.warning("edit %s did not take when it was written again", edit_id)
                advance(len(batch))


def _batches(asked: Sequence[Asked], size: int) -> Iterator[tuple[Writer, list[list[EncodedEdit]]]]:
    """Edits in order, at most `size` together, those with a picture and those without apart; one by one where they
    share weights: what is forgotten is replayed so, and has to come out the same."""
    for _, group in itertools.groupby(asked, key=lambda each: (each.edit.image is None, each.edit.item)):
        alike = list(group)
        writer = alike[0].writer
        most = 1 if writer.memory.replays else size
        for start in range(0, len(alike), most):
            yield writer, [each.renderings() for each in alike[start : start + most]]

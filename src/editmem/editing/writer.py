"""Write edits into a memory: encode them, calibrate it, have them learned, and say what came of each."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from editmem.editing.batches import Batch, batch_of, collate, vision_of
from editmem.editing.calibration import calibration
from editmem.editing.encoder import Encoder
from editmem.editing.endings import AHEAD, Endings
from editmem.editing.optimise import Outcome, write
from editmem.editing.progress import Progress
from editmem.editing.runner import Runner
from editmem.editing.token_directions import TokenDirections, token_directions
from editmem.edits.active import ActiveEdits
from editmem.edits.edit import Edit, EditRecord, EncodedEdit
from editmem.errors import HostError, InvalidEditError
from editmem.hosts.forward import Context, call_of_forward
from editmem.hosts.gate import Gate
from editmem.hosts.modes import lasting
from editmem.hosts.structure import Host, SiteInfo
from editmem.memory import Calibration, Draft, Kept, Match, Memory, Prompts
from editmem.routing.prompts import neutral_prompts
from editmem.storage.snapshots import Restore
from editmem.text.vocabulary import Vocabulary

PREFIXES = ("I", "You", "Because", "Yes", "Q: ")
PREFIX_LENGTHS = (5, 10)
NEUTRAL = 8
"""Prompts at whose ends the size of what the site puts out is taken."""
WORTH_BURYING, MOST_BURIED = 2000, 0.25
"""Rows from which on an edit that goes leaves its row behind, where the memory can; the largest share of such rows."""


class Writer:
    """Puts edits on one memory of a host. Their history is not its business.

    Args:
        host: the host.
        site: the memory's (lowest) site.
        memory: the memory.
        context, gate: of the slots on the host.
        tokenizer: tokenizer or processor; None for the one that is saved where the model came from.

    Attributes:
        active: which rows of the memory are whose.
        stage: rewrites prompts before the host reads them; None for memories that find edits in a forward pass.
        rewritten: whether a prompt stage, its own or that of another memory of the host, changes what the host reads.
    """

    def __init__(
        self, host: Host, site: SiteInfo, memory: Memory, context: Context, gate: Gate, tokenizer: Any
    ) -> None:
        self.host, self.site, self.memory, self.context, self.gate = host, site, memory, context, gate
        self.active = ActiveEdits()
        self._given_tokenizer = tokenizer
        self._encoder: Encoder | None = None
        self._heard: tuple[tuple[int, int], Vocabulary] | None = None
        memory.read_back(self._text)
        self.stage = memory.prompt_stage(self)
        self.rewritten = self.stage is not None

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.encode.tokenizer.decode([i for i in ids if i >= 0], skip_special_tokens=True))

    def edit_of(self, row: int) -> Edit:
        """The edit in a row of the memory."""
        return cast(Edit, self.active.get(self.active.id_of(row)))

    @property
    def encode(self) -> Encoder:
        if self._encoder is None:
            tokenizer = self._given_tokenizer
            if tokenizer is None:
                from transformers import AutoTokenizer

                name = self.host.model.name_or_path
                try:
                    tokenizer = AutoTokenizer.from_pretrained(name)
                except (OSError, ValueError) as error:
                    raise HostError(
                        f"no tokenizer: none was given, and none is found where the model came from ({name!r}). "
                        "Use editmem.wrap(model, spec, tokenizer=tokenizer)"
                    ) from error
            self._encoder = Encoder(tokenizer, self.host.max_length)
        return self._encoder

    def vocabulary(self) -> Vocabulary:
        """That of the tokenizer; made anew, also for the memory, where tokens were added."""
        tokenizer = self.encode.tokenizer
        sizes = len(tokenizer), self.host.vocabulary
        if self._heard is None or self._heard[0] != sizes:
            self._heard = sizes, Vocabulary(tokenizer, self.host.vocabulary, self.host.device)
            if self.memory.calibrated:
                self.memory.hear(self._heard[1])
        return self._heard[1]

    @functools.cached_property
    def endings(self) -> Endings:
        tokenizer, config = self.encode.tokenizer, getattr(self.host.model, "generation_config", None)
        own = getattr(config, "eos_token_id", None)
        stops: list[Any] = [tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
        stops = list(dict.fromkeys(int(stop) for stop in stops if stop is not None))
        return Endings(tokenizer, stops, self.host.max_length)

    def takes(self, edit: Edit) -> bool:
        """Whether the memory holds edits of this kind."""
        return (edit.image is None or self.memory.pictured) and (not edit.item or self.memory.keeps_items)

    def renderings(self, edit: Edit) -> list[EncodedEdit]:
        spec = self.memory.spec
        if edit.item and not self.memory.keeps_items:
            raise InvalidEditError(f"item {edit.id}: {spec.method!r} keeps no items; wrap the model with 'comem'")
        if not self.takes(edit):
            raise InvalidEditError(f"edit {edit.id}: {spec.method!r} edits text only; wrap the model with 'memeic'")
        if edit.item:
            return self.encode.item(edit)
        prefixes = self._prefixes[: spec.context_templates] if spec.context_templates else []
        items = self.encode.renderings(edit, prefixes) if spec.renderings else [self.encode.edit(edit, prefixes)]
        return items if self.stage is None else [self.stage.learned(item) for item in items]

    @functools.cached_property
    def _prefixes(self) -> list[str]:
        """Text to put in front of prompts, as the bare host goes on from `PREFIXES`."""
        with self.host.frozen():
            starts = [(i, self.encode.prompt(start), [0]) for i, start in enumerate(PREFIXES)]
            batch = collate(starts, self.pad, self.host.device)
            said = self.runner().greedy(batch, [max(PREFIX_LENGTHS)] * len(starts), self.pad, bare=True)
        decode = self.encode.decode
        return [
            f"{start} {decode(tokens[:length]).strip()}."
            for length in PREFIX_LENGTHS
            for start, tokens in zip(PREFIXES, said, strict=True)
        ]

    @functools.cached_property
    def directions(self) -> TokenDirections | None:
        """Of the host. Should its weights change later, edits are learned the rest of the way."""
        with self.host.frozen():
            prompts = [self.encode.prompt(text) for text in neutral_prompts()[:NEUTRAL]]
            return token_directions(self.runner(), lambda: self.read(prompts))

    def check_pictures(self, edits: Sequence[Edit]) -> None:
        blind = not self.memory.sees(self.host.image_token is not None)
        for edit in edits:
            if edit.image is not None and blind:
                raise InvalidEditError(
                    f"edit {edit.id}: {type(self.host.model).__name__} has no trace of pictures among the tokens of "
                    "its prompts, so that visual edits cannot be found; edit what it says in words"
                )

    def runner(self) -> Runner:
        return Runner(self.host, self.site, self.context)

    @property
    def pad(self) -> int:
        tokenizer = self.encode.tokenizer
        candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        return next(int(token) for token in candidates if token is not None)

    @lasting
    def calibrate(self, progress: Progress = None) -> None:
        if not self.memory.calibrated:
            vocabulary = self.vocabulary()
            if not self.memory.calibrated_by:
                self.memory.calibrate(Calibration([], [], 0, vocabulary))
                return
            with self.host.frozen():
                self.memory.calibrate(
                    calibration(self.encode, self.read, vocabulary, "pictures" in self.memory.calibrated_by, progress)
                )

    def see(self, inputs: Mapping[str, Any], lengths: Tensor) -> Prompts:
        """As `Runner.see`."""
        return self.runner().see(inputs, lengths)

    def look(self, inputs: Mapping[str, Any], lengths: Tensor) -> Prompts:
        """As `see`; the host does not run where the memory goes by words alone, and there is nothing but words."""
        if not self.memory.by_words or set(inputs) != {"input_ids", "attention_mask"}:
            return self.see(inputs, lengths)
        call = call_of_forward(dict(inputs), None, None, self.memory.window, lengths)
        call = call.on(next(self.memory.buffers(), call.real).device)  # which is where its site runs
        nothing = torch.empty((*call.real.shape, 0), device=call.real.device)
        return Prompts(nothing, nothing, call)

    def read(self, prompts: Sequence[Sequence[int]], vision: Sequence[Mapping[str, Any]] = ()) -> Prompts:
        """What the memory's site sees of prompts, as token ids, with what the host takes to see their pictures."""
        return self.runner().probe(self.batch(prompts, vision))[1]

    def batch(self, prompts: Sequence[Sequence[int]], vision: Sequence[Mapping[str, Any]]) -> Batch:
        batch = collate([(i, ids, [0]) for i, ids in enumerate(prompts)], self.pad, self.host.device)
        seen = [(part, len(ids), len(ids)) for part, ids in zip(vision, prompts, strict=bool(vision))]
        return dataclasses.replace(batch, vision=vision_of(seen, batch)) if seen else batch

    @lasting
    def learn(
        self, batch: Sequence[EncodedEdit], replaced: Sequence[str] = (), note: Callable[[], None] = lambda: None
    ) -> list[Outcome]:
        """Learn edits, and put them into the memory in the place of those with the ids `replaced`, at one moment.

        `note` is called in that moment too.
        """

        def put(commit: Callable[[], list[Kept]]) -> list[Kept]:
            with self.gate.changing():
                self.drop(replaced)
                kept = commit()
                for item in batch:
                    self.active.add(item.edit)
                keep()
                note()
            return kept

        def commit(edits: Sequence[EncodedEdit], draft: Draft, prompts: Prompts) -> list[Kept]:
            return put(lambda: self.memory.commit(edits, draft, prompts))

        self.vocabulary()
        keep = (lambda: None) if self.stage is None else self.stage.keeping(batch)
        if batch[0].edit.item:
            return self._read_in(batch, put)
        directions = lambda: self.directions  # noqa: E731
        return write(self.runner(), self.memory, batch, self.pad, self.endings, commit, self.rewritten, directions)

    def _read_in(
        self, items: Sequence[EncodedEdit], put: Callable[[Callable[[], list[Kept]]], list[Kept]]
    ) -> list[Outcome]:
        """Keep items, of which nothing is learned; they took where their own text or picture finds them."""
        start = time.perf_counter()
        groups = [list(group) for _, group in itertools.groupby(items, key=lambda item: bool(item.vision))]
        read = [self.read([i.prompt for i in group], [i.vision for i in group if i.vision]) for group in groups]

        def commit() -> list[Kept]:
            drafts = [self.memory.draft(g, p, torch.arange(len(g))) for g, p in zip(groups, read, strict=True)]
            return [k for args in zip(groups, drafts, read, strict=True) for k in self.memory.commit(*args)]

        kept = put(commit)
        found = [matches for prompts in read for matches in self.memory.match(prompts, 1)]
        ids = [self.active.id_of(m[0].row) if m and m[0].score >= m[0].threshold else None for m in found]
        seconds = (time.perf_counter() - start) / len(items)
        return [
            Outcome(own == item.edit.id, 0.0, 0.0, 0, seconds, known)
            for item, own, known in zip(items, ids, kept, strict=True)
        ]

    def snapshot(self) -> Restore:
        """What puts the memory, and what is known of its rows, back into their present state."""
        restores = self.memory.snapshot(), self.active.snapshot()

        def undo() -> None:
            for restore in restores:
                restore()

        return undo

    def dependents(self, ids: Sequence[str]) -> list[list[str]]:
        """Edits that share weights with these: groups that are written anew together, in order of writing."""
        rows = self.active.rows_of(ids)
        groups = self.memory.dependents(rows) if rows else []
        return [list(dict.fromkeys(self.active.id_of(row) for row in rows)) for rows in groups]

    @lasting
    def drop(self, ids: Sequence[str]) -> None:
        """Erase those of these edits that the memory holds."""
        if rows := self.active.rows_of(ids):
            with self.gate.changing():
                large = len(self.active.rows) - len(rows) >= WORTH_BURYING
                buried = large and self.memory.bury(rows)
                self.active.bury(ids)
                if not buried or self.active.buried > MOST_BURIED * len(self.active.rows):
                    self.memory.erase(self.active.close_up())
                self.memory.moved()

    @lasting
    def compacted(self) -> list[str]:
        """The edit's id, for each row of the memory, once none is nobody's."""
        if self.active.buried:
            with self.gate.changing():
                self.memory.erase(self.active.close_up())
                self.memory.moved()
        return [self.active.id_of(row) for row in range(len(self.active.rows))]

    @lasting
    def rekey(self, edit: Edit) -> None:
        """Have an active edit go by other `phrasings` and `unlike`."""
        self.memory.rekey(self.active.rows_of([str(edit.id)]), self.renderings(edit))
        self.memory.moved()
        self.active.renew(edit)

    def record(self, item: EncodedEdit, before: str, outcome: Outcome, others: Sequence[Outcome]) -> EditRecord:
        others_like_it = [match for match in outcome.kept.alike if self.active.id_of(match.row) != item.edit.id]
        notes = [self._alike(match) for match in others_like_it]
        if not all(other.took for other in others):
            notes.append("did not take in another rendering (plain text, chat, no white space behind) than the given")
        after = self.encode.decode(item.target).strip()
        if outcome.runs_on:
            after = self.say([dataclasses.replace(item, target=(*item.target, *[self.pad] * AHEAD))])[0]
            notes.append(
                f"did not take: the model goes on after the answer, to {after!r}; give the answer with its end"
            )
        elif item.edit.item and not outcome.took:
            notes.append("its own text does not find it: give its subject, as it stands in questions")
        elif not outcome.took:
            after = self.say([item])[0]
            notes.append(f"did not take: the model answers {after!r}; raise `steps` or choose another layer")
        numbers = (outcome.loss_before, outcome.loss_after, before, after, outcome.steps, outcome.seconds)
        return EditRecord(item.edit, outcome.took, *numbers, tuple(notes), outcome.kept.false_match_rate)

    def _alike(self, match: Match) -> str:
        return (
            f"its prompt also matches edit {self.active.id_of(match.row)} (score {match.score:.3f}, threshold "
            f"{match.threshold:.3f}): a question between the two gets the answer of the nearer one"
        )

    def say(self, edits: Sequence[EncodedEdit]) -> list[str]:
        """What greedy decoding answers now, at most as many tokens as the targets have; nothing to items."""
        if edits[0].edit.item:
            return [""] * len(edits)
        bare = [dataclasses.replace(edit, target=(self.pad,), contexts=()) for edit in edits]
        lengths = [len(edit.target) for edit in edits]
        said = self.runner().greedy(batch_of(bare, [], self.pad, self.host.device), lengths, self.pad)
        return [self.encode.decode(answer).strip() for answer in said]

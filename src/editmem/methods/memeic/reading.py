"""Read prompts before the host does: find edits for them, and put the evidence in."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from editmem.editing.batches import collate
from editmem.editing.calibration import SHOWN
from editmem.edits.edit import Edit, EncodedEdit
from editmem.hosts import caches, compat
from editmem.hosts.decisions import Decisions
from editmem.hosts.forward import IGNORED_LABEL, PADDING, end_from_labels, real_tokens
from editmem.hosts.staged import StagedPrompts
from editmem.memory import Desk, Prompts, PromptStage, Staged
from editmem.methods.memeic.evidence import Evidence, Said

if TYPE_CHECKING:  # the memory makes its stage
    from editmem.methods.memeic.memory import MemeicMemory


class EvidenceStage(PromptStage):
    """Looks prompts up in the external memory, and puts what was found into them.

    Args:
        memory: the memory.
        desk: what is around it.
    """

    options = frozenset({"questions"})

    def __init__(self, memory: "MemeicMemory", desk: Desk) -> None:
        self.memory, self.desk = memory, desk
        memory.external.question_of = lambda ids: self.evidence().question(ids)

    def evidence(self) -> Evidence:
        """What makes prompts with evidence."""
        return Evidence(self.desk.encode, self.desk.host.image_token, self.memory.spec.evidence or "plain")

    def read(self, inputs: Mapping[str, Any], lengths: Tensor | None, generating: bool) -> StagedPrompts | None:
        ids = inputs.get("input_ids")
        if ids is None:
            return None
        cache = compat.cache_among(inputs)
        begun = cache is not None and bool(compat.cache_length(cache))
        note = caches.note_on(cache, ids.shape[0]) if begun else None
        composed = note is not None and note.composed is not None
        if begun and not generating:
            return _continued(inputs, note, Decisions(), False) if composed else None
        real = real_tokens(inputs.get("attention_mask"), (ids.shape[0], ids.shape[1]), ids.device)
        lengths = self._lengths(inputs, real, lengths)
        vision = {name: value for name, value in inputs.items() if name in self._vision_inputs}
        found, _ = self.find(ids, real, lengths, vision)
        nothing = bool(((found["acting"] < 0) & (found["visual"] < 0)).all())
        decisions = Decisions() if nothing else Decisions({self.memory.key: found})
        if composed:
            return _continued(inputs, note, decisions, True)
        if nothing:
            return None
        if self.memory.spec.evidence is None or begun:
            return StagedPrompts(dict(inputs), lengths, decisions)
        return self._composed(inputs, ids, real, lengths, decisions)

    @functools.cached_property
    def _vision_inputs(self) -> set[str]:
        """The host's inputs that say what is in its pictures, and where."""
        return compat.picture_inputs(compat.parameter_names(self.desk.host.model.forward))

    def learned(self, edit: EncodedEdit) -> EncodedEdit:
        """An edit that is learned behind its own evidence too (MemEIC's later training steps)."""
        if self.memory.spec.evidence is None or self.memory.adapters is None:
            return edit
        said, none = Said(edit.edit.text, edit.edit.target), None
        pair = (none, said) if edit.edit.image is None else (said, none)
        evidence = self.evidence()
        composed, _ = evidence.compose(edit.prompt, *pair)
        if not evidence.fits(len(composed) + len(edit.target)):
            return edit
        return dataclasses.replace(edit, contexts=(*edit.contexts, tuple(composed)))

    def with_found(self, edit: EncodedEdit, visual: int, textual: int) -> EncodedEdit:
        """A question with the evidence that it would get if these rows were found for it."""
        if self.memory.spec.evidence is None:
            return edit
        said = self._said(visual), self._said(textual)
        composed, _ = self.evidence().compose(edit.prompt, *said, visual < 0)
        added = len(composed) - len(edit.prompt)
        vision = {
            name: torch.nn.functional.pad(part, (0, added))
            if part.ndim == 2 and compat.is_per_token(name, part, (1, len(edit.prompt)))
            else part
            for name, part in edit.vision.items()
        }
        return dataclasses.replace(edit, prompt=tuple(composed), vision=vision)

    def _lengths(self, inputs: Mapping[str, Any], real: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is not None:
            return lengths.to(real.device)
        if (labels := inputs.get("labels")) is not None:
            position = real.long().cumsum(1) - 1
            return end_from_labels(labels, position, real) + 1
        return real.sum(1)

    def keeping(self, edits: Sequence[Edit]) -> Callable[[], None]:
        """Pictures are kept as the mean of several views of them, which are read beforehand."""
        read: dict[str, Prompts] = {}
        for edit in edits:
            if edit.image is not None and str(edit.id) not in read:
                seen = [self.desk.encode.seen(SHOWN, view) for view in edit.image.views()]
                read[str(edit.id)] = self.desk.read([ids for ids, _ in seen], [vision for _, vision in seen])
        views = [read[str(edit.id)] for edit in edits if edit.image is not None]

        def keep() -> None:
            if views and self.memory.external.pictures is not None:
                self.memory.external.pictures.average_views(views)

        return keep

    def explain(self, inputs: Mapping[str, Any], lengths: Tensor, top: int) -> Staged:
        vision = {name: value for name, value in inputs.items() if name in self._vision_inputs}
        found, hop = self.find(inputs["input_ids"], inputs["attention_mask"].bool(), lengths, vision)
        matches = [] if hop is None else self.memory.external.match(hop, top)[0]
        return Staged(int(found["acting"][0]), int(found["visual"][0]), matches)

    def find(
        self, ids: Tensor, real: Tensor, lengths: Tensor, vision: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], Prompts | None]:
        """The rows of the edits for each prompt, -1 for none: "visual", "textual", and "acting"; and the questions
        about recognised pictures, put in words."""
        if (questions := self.desk.context.stage_options.get("questions")) is not None and len(questions) != len(ids):
            raise ValueError(f"{len(questions)} questions were given for a batch of {len(ids)} rows")
        mask = real.long()
        seen = self.desk.see({"input_ids": ids, "attention_mask": mask, **vision}, lengths)
        found, hop = self.memory.external.find(seen), None
        hops = [
            b
            for b, (v, a) in enumerate(zip(found.visual.tolist(), found.asked.tolist(), strict=True))
            if v >= 0 and not a
        ]
        if hops and self.memory.external.has_textual:
            prompts = [self._prompt(ids[b], real[b], int(lengths[b])) for b in hops]
            names = [self.desk.edit_of(int(found.visual[b])).target for b in hops]
            words = [self._question(b) for b in hops]
            texts = [self.evidence().about(*asked) for asked in zip(prompts, names, words, strict=True)]
            batch = collate([(i, text, [0]) for i, text in enumerate(texts)], self.desk.pad, ids.device)
            hop = self.desk.see({"input_ids": batch.ids, "attention_mask": batch.mask}, batch.mask.sum(1))
            found = self.memory.external.hopped(found, torch.tensor(hops, device=ids.device), hop)
        return found.decided(), hop

    def _question(self, row: int) -> str | None:
        """How a row asks in words about what its picture shows, where that was said."""
        return None if (questions := self.desk.context.stage_options.get("questions")) is None else questions[row]

    @staticmethod
    def _prompt(ids: Tensor, real: Tensor, length: int) -> list[int]:
        return ids[real][:length].tolist()

    def _said(self, row: int) -> Said | None:
        if row < 0:
            return None
        edit = self.desk.edit_of(row)
        return Said(edit.text, edit.target)

    def _composed(
        self,
        inputs: Mapping[str, Any],
        ids: Tensor,
        real: Tensor,
        lengths: Tensor,
        decisions: Decisions,
    ) -> StagedPrompts:
        found = decisions[self.memory.key]
        rows: list[list[int]] = []
        sources: list[list[int]] = []
        places: list[list[int]] = []
        for b in range(ids.shape[0]):
            columns, length = real[b].nonzero().squeeze(1).tolist(), int(lengths[b])
            prompt = ids[b][columns[:length]].tolist()
            visual, textual = (self._said(int(found[name][b])) for name in ("visual", "textual"))
            composed, kept = prompt, length
            if visual is not None or textual is not None:
                asked = int(found["acting"][b]) == int(found["visual"][b])
                evidence = self.evidence()
                said, start = evidence.compose(prompt, visual, textual, asked, self._question(b))
                if evidence.fits(len(said) + len(columns) - length):
                    composed, kept = said, start
            after = columns[length:]
            source = [*columns[:kept], *[-1] * (len(composed) - kept), *after]
            sources.append(source)
            rows.append([*composed, *ids[b][after].tolist()])
            # From the prompt's end backwards; its beginning forwards.
            shift = len(composed) - length
            places.append([at if at < kept else max(kept, at + shift) for at in range(len(columns))])
        return self._laid_out(inputs, real, lengths, decisions, rows, sources, places)

    def _laid_out(
        self,
        inputs: Mapping[str, Any],
        real: Tensor,
        lengths: Tensor,
        decisions: Decisions,
        rows: Sequence[Sequence[int]],
        sources: Sequence[Sequence[int]],
        places: Sequence[Sequence[int]],
    ) -> StagedPrompts:
        """The batch with rows padded on the left."""
        device, width = real.device, max(map(len, rows))
        source = torch.tensor([[-2] * (width - len(row)) + list(row) for row in sources], device=device)
        pad = self.desk.pad
        ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=device)
        place = torch.zeros(real.shape, dtype=torch.long, device=device)
        for b, (row, at) in enumerate(zip(rows, places, strict=True)):
            place[b][real[b]] = torch.tensor(at, device=device) + width - len(row)
        made: dict[str, Any] = {"input_ids": ids, "attention_mask": (source > -2).long()}
        for name, value in inputs.items():
            if name in ("input_ids", "attention_mask", "cache_position", "logits_to_keep"):
                continue
            of_tokens = compat.is_per_token(name, value, real.shape)
            if name == "position_ids":
                if of_tokens:
                    made[name] = (made["attention_mask"].cumsum(1) - 1).clamp(min=0)
            elif of_tokens:
                made[name] = _moved(value, source, IGNORED_LABEL if name == "labels" else 0)
            else:
                made[name] = value
        keep = inputs.get("logits_to_keep") or 0
        added = torch.tensor([len(row) for row in rows], device=device) - real.sum(1)
        return StagedPrompts(made, lengths + added, decisions, place, int(keep))


def _continued(inputs: Mapping[str, Any], note: caches.Note | None, decisions: Decisions, whole: bool) -> StagedPrompts:
    """More of a text whose beginning, with evidence, is in the cache; `inputs` have the `whole` text, or the rest.

    Raises:
        ValueError: if the cache was cut off within the prompt, which was not read as it was given.
    """
    assert note is not None
    assert note.composed is not None
    assert note.text is not None
    if note.text.shape[1] < note.composed.end:
        raise ValueError(
            f"this cache was cut down to {note.text.shape[1]} columns, inside of a prompt that was read with evidence "
            f"in it ({note.composed.end} columns); begin with a new cache"
        )
    made = {name: value for name, value in inputs.items() if name != "cache_position"}
    ids, mask, given = inputs["input_ids"], inputs.get("attention_mask"), note.text.shape[1] - note.composed.added
    new = ids[:, given:] if whole else ids
    before = note.text.to(ids.device)
    after = torch.ones_like(new) if mask is None else mask[:, given:]
    made["attention_mask"] = torch.cat([(before != PADDING).to(after.dtype), after], 1)
    if whole:
        made["input_ids"] = torch.cat([before.clamp(min=0).to(ids.dtype), new], 1)
    if isinstance(made.get("position_ids"), Tensor):
        made["position_ids"] = (made["attention_mask"].cumsum(1) - 1).clamp(min=0)[:, -new.shape[1] :]
    return StagedPrompts(made, None, decisions)


def _moved(value: Tensor, source: Tensor, fill: int) -> Tensor:
    """`[B, T, ...]` at new columns; `source` `[B, S]` says from which, negative for none."""
    index = source.clamp(min=0).view(*source.shape, *[1] * (value.ndim - 2)).expand(-1, -1, *value.shape[2:])
    moved = value.gather(1, index)
    none = (source < 0).view(*source.shape, *[1] * (value.ndim - 2))
    return torch.where(none, torch.full_like(moved, fill), moved)

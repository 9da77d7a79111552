"""Read prompts before the host does: find edits for them, and put the evidence in."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from editmem.editing.optimise import Batch, Runner, collate
from editmem.edits.edit import Edit, EncodedEdit
from editmem.hosts import caches, compat
from editmem.hosts.forward import IGNORED_LABEL, PADDING, end_from_labels, real_tokens
from editmem.memory import Match, Prompts
from editmem.methods.memeic.evidence import Evidence, Said
from editmem.methods.memeic.memory import MemeicMemory


@dataclass(frozen=True)
class Reading:
    """What came of reading a batch.

    Attributes:
        inputs: what the host is to be called with.
        lengths: int64 `[B]`, tokens of each row's prompt, evidence included; None for more of a cached text.
        route: for the memory's carry.
        place: int64 `[B, T]`, where the columns that were given are now; None where nothing was put in.
        keep: how many logits were asked for; 0 for all.
    """

    inputs: dict[str, Any]
    lengths: Tensor | None
    route: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    place: Tensor | None = None
    keep: int = 0

    def generating(self, model: Any) -> dict[str, Any]:
        """The arguments for `generate` of the model."""
        added = 0 if self.place is None else self.inputs["input_ids"].shape[1] - self.place.shape[1]
        return compat.longer(model, self.inputs, added) if added else dict(self.inputs)

    def leave(self, cache: Any) -> None:
        """Note on the cache that `generate` or a forward filled that its text has evidence in it."""
        if cache is not None and self.place is not None:
            columns = self.inputs["input_ids"].shape[1]
            caches.compose(cache, caches.Composed(columns - self.place.shape[1], columns))

    def restore(self, out: Any) -> Any:
        """The host's output with logits for the columns that were given; at a prompt's own, those of its new text."""
        if self.place is None:
            return out
        self.leave(compat.cache_of(out))
        place = self.place.to(out.logits.device)
        out.logits = out.logits.gather(1, place[..., None].expand(-1, -1, out.logits.shape[-1]))[:, -self.keep :]
        return out


class Reader:
    """Looks prompts up in a memory.

    Args:
        runner: of the memory's host and site.
        memory: the memory.
        evidence: makes prompts with evidence, once the tokenizer is known.
        edit_of: the edit of a row of the memory.
        pad: a token id to pad with.
    """

    def __init__(
        self,
        runner: Runner,
        memory: MemeicMemory,
        evidence: Callable[[], Evidence],
        edit_of: Callable[[int], Edit],
        pad: Callable[[], int],
    ) -> None:
        self.runner, self.memory = runner, memory
        self.evidence, self.edit_of, self.pad = evidence, edit_of, pad

    def read(self, inputs: Mapping[str, Any], lengths: Tensor | None, generating: bool) -> Reading | None:
        """Find edits for the prompts of a batch, and compose what the host is to read.

        Args:
            inputs: what the host (or its `generate`) was called with, by name.
            lengths: int64 `[B]`, tokens of each row's prompt; None to go by `labels`, or take all for prompt.
            generating: whether it was `generate`, which gets the whole text even where there is a cache.

        Returns:
            None where nothing was found.
        """
        ids = inputs.get("input_ids")
        if ids is None:
            return None
        cache = compat.cache_among(inputs)
        begun = cache is not None and bool(compat.cache_length(cache))
        note = caches.note_on(cache, ids.shape[0]) if begun else None
        composed = note is not None and note.composed is not None
        if begun and not generating:
            return _continued(inputs, note, {}, False) if composed else None
        real = real_tokens(inputs.get("attention_mask"), (ids.shape[0], ids.shape[1]), ids.device)
        lengths = self._lengths(inputs, real, lengths)
        vision = {name: value for name, value in inputs.items() if name in self._sights}
        found, _ = self.find(ids, real, lengths, vision)
        nothing = bool(((found["acting"] < 0) & (found["visual"] < 0)).all())
        route = {} if nothing else {self.memory.key: found}
        if composed:
            return _continued(inputs, note, route, True)
        if nothing:
            return None
        if self.memory.spec.evidence is None or begun:
            return Reading(dict(inputs), lengths, route)
        return self._composed(inputs, ids, real, lengths, route)

    @functools.cached_property
    def _sights(self) -> set[str]:
        """The host's inputs that say what is in its pictures, and where."""
        return compat.picture_inputs(compat.parameter_names(self.runner.host.model.forward))

    def with_evidence(self, edit: EncodedEdit) -> EncodedEdit:
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

    def explain(self, batch: Batch, top: int) -> tuple[int, int, list[Match]]:
        """For a batch of one: the row of the edit that answers, that of the picture's edit (-1 for none), and what the
        question, put in words, was compared with."""
        route, hop = self.find(batch.ids, batch.mask.bool(), batch.mask.sum(1), batch.vision)
        matches = [] if hop is None else self.memory.external.match(hop, top)[0]
        return int(route["acting"][0]), int(route["visual"][0]), matches

    def find(
        self, ids: Tensor, real: Tensor, lengths: Tensor, vision: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], Prompts | None]:
        """The rows of the edits for each prompt, -1 for none: "visual", "textual", and "acting"; and the questions
        about recognised pictures, put in words."""
        if (questions := self.runner.context.questions) is not None and len(questions) != len(ids):
            raise ValueError(f"{len(questions)} questions were given to `decomposed` for a batch of {len(ids)} rows")
        mask = real.long()
        seen = self.runner.see({"input_ids": ids, "attention_mask": mask, **vision}, lengths)
        found, hop = self.memory.external.find(seen), None
        hops = [
            b
            for b, (v, a) in enumerate(zip(found.visual.tolist(), found.asked.tolist(), strict=True))
            if v >= 0 and not a
        ]
        if hops and self.memory.external.has_textual:
            prompts = [self._prompt(ids[b], real[b], int(lengths[b])) for b in hops]
            names = [self.edit_of(int(found.visual[b])).target for b in hops]
            words = [self._question(b) for b in hops]
            texts = [self.evidence().about(*asked) for asked in zip(prompts, names, words, strict=True)]
            batch = collate([(i, text, [0]) for i, text in enumerate(texts)], self.pad(), ids.device)
            hop = self.runner.see({"input_ids": batch.ids, "attention_mask": batch.mask}, batch.mask.sum(1))
            found = self.memory.external.hopped(found, torch.tensor(hops, device=ids.device), hop)
        return found.route(), hop

    def _question(self, row: int) -> str | None:
        """How a row asks in words about what its picture shows, where that was said."""
        return None if (questions := self.runner.context.questions) is None else questions[row]

    @staticmethod
    def _prompt(ids: Tensor, real: Tensor, length: int) -> list[int]:
        return ids[real][:length].tolist()

    def _said(self, row: int) -> Said | None:
        if row < 0:
            return None
        edit = self.edit_of(row)
        return Said(edit.text, edit.target)

    def _composed(
        self,
        inputs: Mapping[str, Any],
        ids: Tensor,
        real: Tensor,
        lengths: Tensor,
        route: dict[str, dict[str, Tensor]],
    ) -> Reading:
        found = route[self.memory.key]
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
        return self._laid_out(inputs, real, lengths, route, rows, sources, places)

    def _laid_out(
        self,
        inputs: Mapping[str, Any],
        real: Tensor,
        lengths: Tensor,
        route: dict[str, dict[str, Tensor]],
        rows: Sequence[Sequence[int]],
        sources: Sequence[Sequence[int]],
        places: Sequence[Sequence[int]],
    ) -> Reading:
        """The batch with rows padded on the left."""
        device, width = real.device, max(map(len, rows))
        source = torch.tensor([[-2] * (width - len(row)) + list(row) for row in sources], device=device)
        pad = self.pad()
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
        return Reading(made, lengths + added, route, place, int(keep))


def _continued(
    inputs: Mapping[str, Any], note: caches.Note | None, route: dict[str, dict[str, Tensor]], whole: bool
) -> Reading:
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
    return Reading(made, None, route)


def _moved(value: Tensor, source: Tensor, fill: int) -> Tensor:
    """`[B, T, ...]` at new columns; `source` `[B, S]` says from which, negative for none."""
    index = source.clamp(min=0).view(*source.shape, *[1] * (value.ndim - 2)).expand(-1, -1, *value.shape[2:])
    moved = value.gather(1, index)
    none = (source < 0).view(*source.shape, *[1] * (value.ndim - 2))
    return torch.where(none, torch.full_like(moved, fill), moved)

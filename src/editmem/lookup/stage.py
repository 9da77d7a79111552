"""Look prompts up before the host reads them, and lay them out anew with what was found."""

import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from editmem.editing.calibration import SHOWN
from editmem.edits.edit import EncodedEdit
from editmem.hosts import caches, compat
from editmem.hosts.decisions import Decisions
from editmem.hosts.forward import IGNORED_LABEL, PADDING, end_from_labels, real_tokens
from editmem.hosts.staged import StagedPrompts
from editmem.lookup.memory import LookedUpMemory
from editmem.memory import Desk, Prompts, PromptStage, Staged

NEW = -1
"""Of a column that was put in: the column that it had before."""


@dataclass(frozen=True)
class Row:
    """One text as the host is to read it.

    Attributes:
        tokens: its token ids.
        source: the column that each had, `NEW` where it was put in.
        places: where each of its columns is now.
    """

    tokens: Sequence[int]
    source: Sequence[int]
    places: Sequence[int]


class LookupStage(PromptStage):
    """Looks prompts up in the memory's external memory, and puts in what was found.

    Args:
        memory: the memory.
        desk: what is around it.
    """

    def __init__(self, memory: LookedUpMemory, desk: Desk) -> None:
        self.memory, self.desk = memory, desk

    @property
    def puts_in(self) -> bool:
        """Whether prompts are changed by what is found."""
        return True

    @abstractmethod
    def find(
        self, ids: Tensor, real: Tensor, lengths: Tensor, vision: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], Prompts | None]:
        """The rows of the edits for each prompt, -1 for none: "visual", "textual", and "acting"; and questions that
        were asked on the way."""

    @abstractmethod
    def row(self, tokens: Sequence[int], columns: Sequence[int], length: int, found: Mapping[str, Any], b: int) -> Row:
        """A text with what was found for it.

        Args:
            tokens: of the text.
            columns: where they are in the batch.
            length: how many are its prompt.
            found: as of `find`.
            b: its row in the batch.
        """

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
        if begun or not self.puts_in:
            return StagedPrompts(dict(inputs), lengths, decisions)
        return self.composed(inputs, ids, real, lengths, decisions)

    @functools.cached_property
    def _vision_inputs(self) -> set[str]:
        """The host's inputs that say what is in its pictures, and where."""
        return compat.picture_inputs(compat.parameter_names(self.desk.host.model.forward))

    def _lengths(self, inputs: Mapping[str, Any], real: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is not None:
            return lengths.to(real.device)
        if (labels := inputs.get("labels")) is not None:
            position = real.long().cumsum(1) - 1
            return end_from_labels(labels, position, real) + 1
        return real.sum(1)

    def keeping(self, edits: Sequence[EncodedEdit]) -> Callable[[], None]:
        """Pictures are kept as the mean of several views of them, which are read beforehand."""
        read: dict[str, Prompts] = {}
        pictured = [item.edit for item in edits if item.vision]
        for edit in pictured:
            if str(edit.id) not in read:
                seen = [self.desk.encode.seen(SHOWN, view) for view in edit.image.views()]
                read[str(edit.id)] = self.desk.read([ids for ids, _ in seen], [vision for _, vision in seen])
        views = [read[str(edit.id)] for edit in pictured]

        def keep() -> None:
            if views and self.memory.external.pictures is not None:
                self.memory.external.pictures.average_views(views)

        return keep

    def explain(self, inputs: Mapping[str, Any], lengths: Tensor, top: int) -> Staged:
        vision = {name: value for name, value in inputs.items() if name in self._vision_inputs}
        found, hop = self.find(inputs["input_ids"], inputs["attention_mask"].bool(), lengths, vision)
        matches = [] if hop is None else self.memory.external.match(hop, top)[0]
        return Staged(int(found["acting"][0]), int(found["visual"][0]), matches)

    def composed(
        self, inputs: Mapping[str, Any], ids: Tensor, real: Tensor, lengths: Tensor, decisions: Decisions
    ) -> StagedPrompts:
        """The batch with what was found put in."""
        found = {name: part.tolist() for name, part in decisions[self.memory.key].items()}
        rows = []
        for b in range(ids.shape[0]):
            columns = real[b].nonzero().squeeze(1).tolist()
            own = {name: part[b] for name, part in found.items()}
            rows.append(self.row(ids[b][columns].tolist(), columns, int(lengths[b]), own, b))
        return self._laid_out(inputs, real, lengths, decisions, rows)

    def _laid_out(
        self,
        inputs: Mapping[str, Any],
        real: Tensor,
        lengths: Tensor,
        decisions: Decisions,
        rows: Sequence[Row],
    ) -> StagedPrompts:
        """The batch with rows padded on the left."""
        device, width = real.device, max(len(row.tokens) for row in rows)

        def padded(name: str, fill: int) -> Tensor:
            texts = [getattr(row, name) for row in rows]
            return torch.tensor([[fill] * (width - len(text)) + list(text) for text in texts], device=device)

        source, ids = padded("source", NEW - 1), padded("tokens", self.desk.pad)
        place = torch.zeros(real.shape, dtype=torch.long, device=device)
        for b, row in enumerate(rows):
            place[b][real[b]] = torch.tensor(row.places, device=device) + width - len(row.tokens)
        made: dict[str, Any] = {"input_ids": ids, "attention_mask": (source >= NEW).long()}
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
        added = torch.tensor([len(row.tokens) for row in rows], device=device) - real.sum(1)
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

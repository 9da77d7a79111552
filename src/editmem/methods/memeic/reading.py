"""Read prompts before the host does: find edits for them, and put the evidence in."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from editmem.editing.batches import collate
from editmem.edits.edit import EncodedEdit
from editmem.hosts import compat
from editmem.lookup.stage import NEW, LookupStage, Row
from editmem.memory import Desk, Prompts
from editmem.methods.memeic.evidence import Evidence, Said

if TYPE_CHECKING:  # the memory makes its stage
    from editmem.methods.memeic.memory import MemeicMemory


class EvidenceStage(LookupStage):
    """Looks prompts up in the external memory, and puts what was found into them.

    Args:
        memory: the memory.
        desk: what is around it.
    """

    options = frozenset({"questions"})

    def __init__(self, memory: "MemeicMemory", desk: Desk) -> None:
        super().__init__(memory, desk)
        self.memory: MemeicMemory = memory
        memory.external.question_of = lambda ids: self.evidence().question(ids)

    @property
    def puts_in(self) -> bool:
        return self.memory.spec.evidence is not None

    def evidence(self) -> Evidence:
        """What makes prompts with evidence."""
        return Evidence(self.desk.encode, self.desk.host.image_token, self.memory.spec.evidence or "plain")

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

    def row(self, tokens: Sequence[int], columns: Sequence[int], length: int, found: Mapping[str, Any], b: int) -> Row:
        composed, kept, prompt = list(tokens[:length]), length, tokens[:length]
        visual, textual = (self._said(found[name]) for name in ("visual", "textual"))
        if visual is not None or textual is not None:
            evidence = self.evidence()
            said, start = evidence.compose(
                prompt, visual, textual, found["acting"] == found["visual"], self._question(b)
            )
            if evidence.fits(len(said) + len(columns) - length):
                composed, kept = said, start
        source = [*columns[:kept], *[NEW] * (len(composed) - kept), *columns[length:]]
        # From the prompt's end backwards; its beginning forwards.
        shift = len(composed) - length
        places = [at if at < kept else max(kept, at + shift) for at in range(len(columns))]
        return Row([*composed, *tokens[length:]], source, places)

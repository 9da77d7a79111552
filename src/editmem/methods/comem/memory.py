"""CoMEM (arXiv 2505.17670): items of knowledge as embeddings, kept outside of the model and put in front of prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import PADDING, Call
from editmem.hosts.structure import Host, SiteInfo
from editmem.lookup.external import Found
from editmem.lookup.memory import LookedUpMemory
from editmem.lookup.parts import NoDraft, Part
from editmem.memory import Calibration, Desk, Draft, Kept, Prompts, PromptStage
from editmem.methods.comem.bank import MemoryBank
from editmem.methods.comem.encoder import MemoryEncoder
from editmem.methods.comem.reading import MemoryStage

if TYPE_CHECKING:  # a spec makes its memory
    from editmem.methods.comem.spec import ComemSpec


SOME = 1024
"""Word embeddings that are looked at for their scale."""
ROWS = 4
"""Most rows that an item may be found by: its picture and its text, each as plain text and as a turn of a chat."""


class ComemMemory(LookedUpMemory):
    """Items, one row for each rendering, and their embeddings.

    Prompts are looked up before the host reads them (`reading.MemoryStage`), and get places for the embeddings of what
    was found; these stand in for those of the places' tokens, behind the host's word embeddings.

    Args:
        spec: the settings.
        host: the host.
        read: the site of the block whose input prompts are compared by.
        encoder: the folder of a trained `MemoryEncoder`, read before the first edit; None for none.
    """

    keeps_items = True

    def __init__(self, spec: "ComemSpec", host: Host, read: SiteInfo, encoder: str | Path | None) -> None:
        super().__init__(spec, host, read)
        self.spec: ComemSpec = spec
        self.words = host.embedding.removesuffix(".weight")
        self.folder = encoder
        self.encoder = MemoryEncoder(host, **spec.shape)
        with torch.no_grad():
            self.encoder.begin(host.module(self.words)(torch.arange(min(SOME, host.vocabulary), device=host.device)))
        self.bank = MemoryBank(self.encoder.queries, self.encoder.width)

    def prompt_stage(self, desk: Desk) -> PromptStage:
        return MemoryStage(self, desk)

    def calibrate(self, neutral: Calibration) -> None:
        if self.folder is not None and not self.encoder.trained:
            self.encoder.load(self.folder)
        super().calibrate(neutral)

    def places(self, path: str) -> dict[str, Any]:
        places = super().places(path)
        places[path].moves.append(self.encoder)
        return {**places, self.words: Part(self, self.put_in, moves=[self.bank])}

    # Acting

    def put_in(self, number: int, tokens: Tensor, out: Tensor, call: Call) -> Tensor:
        """The word embeddings `[B, T, d]`, with those of items at the beginning of each row's text.

        The items of a row are "items" in its decisions, int64 `[B, n]`, rows of the memory, -1 for none and last.
        """
        state = call.decisions.get(self.key)
        self.action(call)
        if state is None or "items" not in state or not call.decides:
            return out
        items = state["items"].to(out.device)
        before = 0 if call.before is None else (call.before != PADDING).sum(1, keepdim=True).to(out.device)
        at = call.real.long().cumsum(1) - 1 + before
        mine = call.real & (at < (items >= 0).sum(1, keepdim=True) * self.bank.queries)
        if not bool(mine.any()):
            return out
        at = at.clamp(min=0, max=items.shape[1] * self.bank.queries - 1)
        put = self.bank.at(items.gather(1, at // self.bank.queries).clamp(min=0), at % self.bank.queries)
        return torch.where(mine[..., None], put.to(out.dtype), out)

    def found(self, prompts: Prompts) -> dict[str, Tensor]:
        """What was found for each prompt, as `Decisions` carry it: rows "visual", "textual", "items" and "acting"."""
        found: Found = self.external.find(prompts)
        known = self.bank.whole(found.visual) | found.asked
        shown = torch.where(known & (found.visual >= 0), found.visual, -1)
        said = found.textual
        items = torch.stack([torch.where(said >= 0, said, shown), torch.where(said >= 0, shown, -1)], 1)
        if self.spec.items > items.shape[1]:
            items = self._further(items, prompts)
        items = items[:, : self.spec.items]
        return {"visual": shown, "textual": said, "items": items, "acting": items[:, 0]}

    def _further(self, items: Tensor, prompts: Prompts) -> Tensor:
        """Behind the items `[B, n]` that were found, those of other rows that reach their thresholds, nearest first.

        What one item is found by may be several rows; each item comes once.
        """
        rows = []
        for own, matches in zip(items.tolist(), self.match(prompts, ROWS * self.spec.items), strict=True):
            near = [match.row for match in matches if match.score >= match.threshold]
            found = [row for row in own if row >= 0] + [row for row in near if bool(self.bank.wholes.data[row])]
            first: dict[int, int] = {}
            for row in found:
                first.setdefault(int(self.bank.entries.data[row]), row)
            chosen = list(first.values())[: self.spec.items]
            rows.append(chosen + [-1] * (self.spec.items - len(chosen)))
        return torch.tensor(rows, device=items.device)

    # Writing

    def draft(self, edits: Sequence[EncodedEdit], prompts: Prompts, owner: Tensor) -> Draft:
        return NoDraft()

    def commit(self, edits: Sequence[EncodedEdit], draft: Draft, prompts: Prompts) -> list[Kept]:
        self.targets.append(edits)
        return self.external.append(prompts, edits)

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.bank.keep(rows)

    # Keeping

    def restored(self) -> None:
        super().restored()
        if len(self.bank) != len(self.targets):
            raise ValueError("embeddings and targets differ in their number of edits")

"""MemEIC (arXiv 2510.25798): edits of pictures and of facts, found outside of the model and learned inside of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import Call
from editmem.hosts.structure import Host, SiteInfo
from editmem.lookup.external import VISUAL, kind_of
from editmem.lookup.memory import LookedUpMemory
from editmem.lookup.parts import NoDraft, Part
from editmem.memory import Desk, Draft, Kept, Prompts, PromptStage
from editmem.methods.memeic.adapters import AdapterDraft, DualAdapters, add
from editmem.methods.memeic.connector import KnowledgeConnector
from editmem.methods.memeic.reading import EvidenceStage

if TYPE_CHECKING:  # a spec makes its memory
    from editmem.methods.memeic.spec import MemeicSpec


class MemeicMemory(LookedUpMemory):
    """Edits of both modalities, one row each, and what they need at their sites.

    Prompts are looked up before the host reads them (`reading.EvidenceStage`).

    Args:
        spec: the settings.
        host: the host.
        read: the site of the block whose input prompts are compared by.
        sites: linear maps with adapters.
        attention: linear maps with the connector.
        dtype: of the host.
    """

    def __init__(
        self,
        spec: "MemeicSpec",
        host: Host,
        read: SiteInfo,
        sites: Sequence[SiteInfo],
        attention: Sequence[SiteInfo],
        dtype: torch.dtype,
    ) -> None:
        super().__init__(spec, host, read)
        self.spec: MemeicSpec = spec
        self.replays = spec.storage == "shared"
        self.adapters: DualAdapters | None = None
        if spec.storage is not None:
            self.adapters = DualAdapters(sites, spec.rank, spec.alpha, not self.replays, dtype, spec.seed)
        self.connector: KnowledgeConnector | None = None
        if spec.connector:
            self.connector = KnowledgeConnector(attention, spec.connector_rank, spec.connector_alpha, spec.seed)

    def prompt_stage(self, desk: Desk) -> PromptStage:
        return EvidenceStage(self, desk)

    def hosted(self) -> Sequence[Tensor]:
        return [] if self.adapters is None else self.adapters.hosted()

    def places(self, path: str) -> dict[str, Any]:
        places = super().places(path)
        adapted = [] if self.adapters is None else self.adapters.maps
        connected = [] if self.connector is None else self.connector.maps
        own = places[path].moves
        places |= {low_rank.path: Part(self, self.adapt, i, [low_rank]) for i, low_rank in enumerate(adapted)}
        places |= {weights.path: Part(self, self.connect, i, [weights]) for i, weights in enumerate(connected)}
        places[path].moves += [module for module in own if module not in places[path].moves]
        return places

    def adapt(self, number: int, x: Tensor, out: Tensor, call: Call) -> Tensor:
        """Apply the adapters at map `number` to the rows that edits act on."""
        assert self.adapters is not None
        action = self.action(call)
        if action is None or (action.active.device.type == "cpu" and not bool(action.active.any())):
            return out
        state, weights, scale = call.decisions[self.key], self.adapters.maps[number].weights, self.adapters.scale
        if self.spec.both == "textual":
            return add(x, out, weights, self._adapter(state["acting"]), action.active, scale)
        for name in ("visual", "textual"):
            active = action.active & (state[name] >= 0)[:, None]
            out = add(x, out, weights, self._adapter(state[name]), active, scale)
        return out

    def _adapter(self, rows: Tensor) -> Tensor:
        rows = rows.clamp(min=0)
        return rows if self.adapters is not None and self.adapters.per_edit else 1 - self.external.kinds.data[rows]

    def connect(self, number: int, x: Tensor, out: Tensor, call: Call) -> Tensor:
        """Apply the connector at projection `number` to rows with both modalities."""
        assert self.connector is not None
        self.action(call)
        state = call.decisions.get(self.key)
        if state is None or not self.connector.trained:
            return out
        both = (state["visual"] >= 0) & (state["textual"] >= 0)
        return self.connector.add(number, x, out, both)

    # Writing

    def draft(self, edits: Sequence[EncodedEdit], prompts: Prompts, owner: Tensor) -> Draft:
        if self.adapters is None:
            return NoDraft()
        lengths, spec = self.targets.count(edits)[owner], self.spec
        return self.adapters.draft(kind_of(edits) == VISUAL, owner, lengths, spec.learning_rate, spec.weight_decay)

    def commit(self, edits: Sequence[EncodedEdit], draft: Draft, prompts: Prompts) -> list[Kept]:
        if isinstance(draft, AdapterDraft) and self.adapters is not None:
            self.adapters.commit(draft, kind_of(edits) == VISUAL)
        self.targets.append(edits)
        return self.external.append(prompts, edits)

    def dependents(self, rows: Sequence[int]) -> list[list[int]]:
        return [list(range(len(self)))] if self.replays else []

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        if self.adapters is not None:
            self.adapters.keep(rows)

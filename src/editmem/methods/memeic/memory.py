"""MemEIC (arXiv 2510.25798): edits of pictures and of facts, found outside of the model and learned inside of it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from editmem.edits.edit import EncodedEdit
from editmem.hosts.decisions import KEPT
from editmem.hosts.forward import Call, Mode
from editmem.hosts.structure import Host, SiteInfo
from editmem.memory import Calibration, Desk, Draft, Kept, Match, Memory, Prompts, PromptStage
from editmem.methods.memeic.adapters import AdapterDraft, DualAdapters, add
from editmem.methods.memeic.connector import KnowledgeConnector
from editmem.methods.memeic.external import ENCODED, VISUAL, ExternalMemory, kind_of
from editmem.methods.memeic.parts import NoDraft, Part
from editmem.methods.memeic.pictures import PictureIndex, with_originals
from editmem.methods.memeic.reading import EvidenceStage
from editmem.routing.answers import Action, Reach, follow, last_action, proceed, reach_of, recorded, resumed
from editmem.routing.name_router import NameRouter
from editmem.routing.question_router import QuestionRouter
from editmem.routing.sentence_encoder import SentenceEncoder
from editmem.routing.text_questions import TextQuestions
from editmem.storage.targets import Targets, rows_but
from editmem.text.vocabulary import Vocabulary

if TYPE_CHECKING:  # a spec makes its memory
    from editmem.methods.memeic.spec import MemeicSpec

CALIBRATED_RATE = 0.09
"""The share of look-alikes that may match, where the threshold is calibrated and the user gives none."""


class MemeicMemory(Memory):
    """Edits of both modalities, one row each, and what they need at their sites.

    Prompts are looked up before the host reads them (`reading.EvidenceStage`); a forward pass gets the outcome
    in its `Decisions`.

    Args:
        spec: the settings.
        host: the host.
        read: the site of the block whose input prompts are compared by.
        sites: linear maps with adapters.
        attention: linear maps with the connector.
        dtype: of the host.
    """

    pictured = True
    decides = (*Memory.decides, "acting", "visual", "textual")

    def __init__(
        self,
        spec: "MemeicSpec",
        host: Host,
        read: SiteInfo,
        sites: Sequence[SiteInfo],
        attention: Sequence[SiteInfo],
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.spec: MemeicSpec = spec
        self.replays = spec.storage == "shared"
        self.first_block, self.read_block = f"{host.blocks_path}.0", read.block_path
        pictures = None
        if host.image_token is not None:
            pictures = PictureIndex(
                self.first_block, read.block_path, host.vision_tower, host.image_token, host.hidden_size, spec.index,
                spec.picture_threshold, spec.picture_miss_rate, spec.picture_false_match_rate,
                spec.question_false_match_rate,
            )  # fmt: skip
        encoder = None if spec.text_encoder is None else SentenceEncoder(spec.text_encoder, host.device, "text_encoder")
        rate = CALIBRATED_RATE if spec.false_match_rate is None else spec.false_match_rate
        router: NameRouter | QuestionRouter
        if spec.router == "names":
            compared = (read.block_path, host.hidden_size) if encoder is None else (ENCODED, encoder.width)
            router = NameRouter(*compared, spec.threshold, rate)
        else:
            asking = None if encoder is None else TextQuestions(encoder, rate)
            router, encoder = QuestionRouter(spec.threshold, spec.false_match_rate, asking), None
        self.external = ExternalMemory(router, pictures, encoder)
        self.targets = Targets()
        self.adapters: DualAdapters | None = None
        if spec.storage is not None:
            self.adapters = DualAdapters(sites, spec.rank, spec.alpha, not self.replays, dtype, spec.seed)
        self.connector: KnowledgeConnector | None = None
        if spec.connector:
            self.connector = KnowledgeConnector(attention, spec.connector_rank, spec.connector_alpha, spec.seed)

    def sees(self, host: bool) -> bool:
        return (pictures := self.external.pictures) is not None and pictures.sees

    def prompt_stage(self, desk: Desk) -> PromptStage:
        return EvidenceStage(self, desk)

    def calibrate(self, neutral: Calibration) -> None:
        self.external.calibrate(neutral)
        self.calibrated = True

    @property
    def calibrated_by(self) -> Collection[str]:
        pictures = () if self.external.pictures is None else ("prompts", "pictures")
        return {*self.external.router.calibrated_by, *pictures}

    @property
    def rekeys(self) -> bool:
        return self.external.router.rekeys

    def rekey(self, rows: Sequence[int], edits: Sequence[EncodedEdit]) -> None:
        self.external.rekey(rows, edits)

    def read_back(self, text_of: Callable[[Sequence[int]], str]) -> None:
        self.external.router.read_back(text_of)

    def hear(self, vocabulary: Vocabulary) -> None:
        self.external.router.hear(vocabulary)

    def hosted(self) -> Sequence[Tensor]:
        return [] if self.adapters is None else self.adapters.hosted()

    # Where it sits

    def places(self, path: str) -> dict[str, Any]:
        adapted = [] if self.adapters is None else self.adapters.maps
        connected = [] if self.connector is None else self.connector.maps
        places = {path: Part(self)}
        places |= {low_rank.path: Part(self, self.adapt, i, [low_rank]) for i, low_rank in enumerate(adapted)}
        places |= {weights.path: Part(self, self.connect, i, [weights]) for i, weights in enumerate(connected)}
        places[path].moves += [self.external, self.targets]
        return places

    def blocks(self, block_path: str) -> Sequence[str]:
        return list(dict.fromkeys([self.first_block, self.read_block]))

    def notes(self) -> Sequence[str]:
        pictures = self.external.pictures
        return [] if pictures is None or pictures.vision_tower is None else [pictures.vision_tower]

    # Acting

    def forward(self, x: Tensor, out: Tensor, call: Call) -> Tensor:
        return out  # its parts act

    def action(self, call: Call) -> Action | None:
        """What acts on which token, worked out at the first of the memory's sites; None where nothing does."""
        if self.key not in call.acted:
            call.acted[self.key] = self._action(call)
        return call.acted[self.key]

    def _action(self, call: Call) -> Action | None:
        state = call.decisions.get(self.key)
        if state is None or "acting" not in state or call.mode is Mode.SCAN:
            call.decisions.pop(self.key, None)
            return None
        call = call.on(self.targets.lengths.data.device)
        state = self.current({name: tensor.to(call.real.device) for name, tensor in state.items()})
        tokens, lengths = self.targets.tokens.data, self.targets.lengths.data
        reach = reach_of(tokens, lengths)
        if KEPT in state:
            state = _in_step(state, call, reach, tokens.shape[1])
        if call.mode is Mode.BOUNDARY:
            action = follow(call, state["acting"], reach)
            if call.decides:
                state |= recorded(call, state["acting"], {})
        else:
            action = proceed(call, state, tokens, lengths)
        call.decisions[self.key] = self.stamped({**state, **last_action(action, call)})
        return action

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

    def erase(self, rows: Sequence[int]) -> None:
        kept = rows_but(rows, len(self), self.targets.lengths.data.device)
        self.external.keep(kept)
        if self.adapters is not None:
            self.adapters.keep(kept)
        self.targets.keep(kept)

    def match(self, prompts: Prompts, top: int) -> list[list[Match]]:
        return self.external.match(prompts, top)

    # Keeping

    def upgraded(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return with_originals(super().upgraded(tensors), "external.pictures.")

    def restored(self) -> None:
        if len(self.targets) != len(self.external.kinds):
            raise ValueError("targets and what finds them differ in their number of edits")


def _in_step(state: dict[str, Tensor], call: Call, reach: Reach, window: int) -> dict[str, Tensor]:
    """What was decided on a text, worked out anew where the end of it was taken away since."""
    ends = state.get("ends")
    gone = torch.ones_like(state[KEPT], dtype=torch.bool) if ends is None else ends[:, 0] >= state[KEPT]
    found = {name: torch.where(gone, -1, state[name]) for name in ("acting", "visual", "textual")}
    if call.before is None or ends is None:
        none = torch.full_like(found["acting"], -1)
        return {**found, "edit": none, "step": none}
    history = {"ends": ends, "ended": found["acting"][:, None]}
    return {**found, **history, **last_action(*resumed(call.before, history, reach, window))}

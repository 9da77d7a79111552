"""What memories share whose edits are looked up before the host reads a prompt."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from editmem.edits.edit import EncodedEdit
from editmem.hosts.decisions import KEPT
from editmem.hosts.forward import Call, Mode
from editmem.hosts.structure import Host, SiteInfo
from editmem.lookup.external import ENCODED, ExternalMemory
from editmem.lookup.parts import Part
from editmem.lookup.pictures import PictureIndex, with_originals
from editmem.lookup.spec import LookupSpec
from editmem.memory import Calibration, Match, Memory, Prompts
from editmem.routing.answers import Action, Reach, follow, last_action, proceed, reach_of, recorded, resumed
from editmem.routing.name_router import NameRouter
from editmem.routing.question_router import QuestionRouter
from editmem.routing.sentence_encoder import SentenceEncoder
from editmem.routing.text_questions import TextQuestions
from editmem.storage.targets import Targets, rows_but
from editmem.text.vocabulary import Vocabulary

CALIBRATED_RATE = 0.09
"""The share of look-alikes that may match, where the threshold is calibrated and the user gives none."""


class LookedUpMemory(Memory):
    """Edits of both modalities, one row each, found by its prompt stage; a forward pass gets what was found in its
    `Decisions`.

    Args:
        spec: the settings.
        host: the host.
        read: the site of the block whose input prompts are compared by.
    """

    pictured = True
    decides = (*Memory.decides, "acting", "visual", "textual")

    def __init__(self, spec: LookupSpec, host: Host, read: SiteInfo) -> None:
        super().__init__()
        self.first_block, self.read_block = f"{host.blocks_path}.0", read.block_path
        self.external = _external(spec, host, read)
        self.targets = Targets()

    def sees(self, host: bool) -> bool:
        return (pictures := self.external.pictures) is not None and pictures.sees

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

    # Where it sits

    def places(self, path: str) -> dict[str, Any]:
        return {path: Part(self, moves=[self.external, self.targets])}

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

    # Writing

    def erase(self, rows: Sequence[int]) -> None:
        self.keep(rows_but(rows, len(self), self.targets.lengths.data.device))

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these (int64, ascending)."""
        self.external.keep(rows)
        self.targets.keep(rows)

    def match(self, prompts: Prompts, top: int) -> list[list[Match]]:
        return self.external.match(prompts, top)

    # Keeping

    def upgraded(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return with_originals(super().upgraded(tensors), "external.pictures.")

    def restored(self) -> None:
        if len(self.targets) != len(self.external.kinds):
            raise ValueError("targets and what finds them differ in their number of edits")


def _external(spec: LookupSpec, host: Host, read: SiteInfo) -> ExternalMemory:
    pictures = None
    if host.image_token is not None:
        pictures = PictureIndex(
            f"{host.blocks_path}.0", read.block_path, host.vision_tower, host.image_token, host.hidden_size, spec.index,
            spec.picture_threshold, spec.picture_miss_rate, spec.picture_false_match_rate,
            spec.question_false_match_rate,
        )  # fmt: skip
    encoder = None if spec.text_encoder is None else SentenceEncoder(spec.text_encoder, host.device, "text_encoder")
    rate = CALIBRATED_RATE if spec.false_match_rate is None else spec.false_match_rate
    if spec.router == "names":
        compared = (read.block_path, host.hidden_size) if encoder is None else (ENCODED, encoder.width)
        return ExternalMemory(NameRouter(*compared, spec.threshold, rate), pictures, encoder)
    asking = None if encoder is None else TextQuestions(encoder, rate)
    return ExternalMemory(QuestionRouter(spec.threshold, spec.false_match_rate, asking), pictures)


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

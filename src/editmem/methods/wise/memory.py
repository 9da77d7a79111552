"""WISE's side memory (arXiv 2405.14768): what edits add to the weight of one feed-forward block, in shards."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import NO_TOKEN, Call, Mode
from editmem.hosts.structure import SiteInfo
from editmem.memory import Calibration, Draft, Kept, Match, Prompts
from editmem.methods.wise.descent import Descent, Margins
from editmem.methods.wise.pilot import HIGHEST, pilot_threshold
from editmem.methods.wise.prefixes import Prefixes, code_after, code_with
from editmem.methods.wise.scope import Scope
from editmem.methods.wise.shards import Shards
from editmem.methods.wise.sides import Sides
from editmem.methods.wise.solving import Solving, end_inputs
from editmem.routing.answers import Action, Reach, last_action
from editmem.routing.decision import ActingMemory
from editmem.routing.question_router import QuestionRouter
from editmem.storage.targets import Targets, rows_but
from editmem.text.vocabulary import Vocabulary

if TYPE_CHECKING:  # a spec makes its memory
    from editmem.methods.wise.spec import WiseSpec

QUESTIONS = "questions"
FEWEST, MOST = 32, 128
"""Edits that the threshold is set by."""
CALIBRATED_RATE = 0.1
"""The share of look-alikes that may match, where the threshold is calibrated and the user gives none."""
ROUNDING = 1e-3
"""By how much the lowest score of a side's edits may come out lower in another batch or on another machine."""


class SideMemory(ActingMemory):
    """Output `out + x ΔWᵀ`, with the ΔW of the side that a prompt is for.

    A prompt is routed to a side, not to an edit: the side acts at the prompt's end, and on while the text is the
    beginning of the target of any edit in it.

    Args:
        spec: the settings.
        site: where it sits.
        dtype: of the host.
    """

    spec: "WiseSpec"
    pictured = True

    def __init__(self, spec: "WiseSpec", site: SiteInfo, dtype: torch.dtype) -> None:
        super().__init__()
        self.spec = spec
        self.replays = spec.training == "sgd"
        self.rate = CALIBRATED_RATE if spec.false_match_rate is None else spec.false_match_rate
        size = max(1, round(spec.density * site.in_features / 20)) if spec.shard_edits is None else spec.shard_edits
        self.router = QuestionRouter(spec.threshold, spec.false_match_rate) if spec.routing == QUESTIONS else None
        self.pictured = self.router is None
        self.scope = Scope("calibrated" if self.router is not None else spec.routing, spec.activation)
        self.prefixes = Prefixes()
        shards = Shards(site.in_features, site.out_features, spec.density, spec.seed, dtype)
        self.learned: Solving | Descent
        if spec.training == "solve":
            rate = 0.2 if spec.learning_rate is None else spec.learning_rate
            self.learned = Solving(shards, size, rate, spec.strength, spec.ridge, spec.apart)
        else:
            margins = Margins(spec.alpha, spec.beta, spec.gamma)
            rate = 1.0 if spec.learning_rate is None else spec.learning_rate
            self.learned = Descent(shards, size, rate, margins, spec.absolute, self.scope, spec.replay)
        self.sides = Sides(spec.inference, spec.group, spec.merging, spec.keep)

    @property
    def targets(self) -> Targets:  # type: ignore[override]
        return self.learned.targets

    def hosted(self) -> Sequence[Tensor]:
        return [self.sides.deltas, *self.learned.hosted()]

    def calibrate(self, neutral: Calibration) -> None:
        self.learned.calibrate(neutral)
        if self.router is not None:
            self.router.calibrate(neutral)
        threshold = self.spec.threshold
        if self.spec.routing != "calibrated":
            threshold = 1.0
        elif threshold is None:
            threshold = pilot_threshold(neutral, self._pilot(neutral), self.rate)
        self.scope.base = torch.full_like(self.scope.base, threshold)
        self.scope.threshold = torch.full_like(self.scope.threshold, threshold)
        self.calibrated = True

    def _pilot(self, neutral: Calibration) -> Solving:
        if isinstance(self.learned, Solving):
            return self.learned
        spec = self.spec
        pilot = Solving(self.learned.shards, self.learned.size, 0.0, spec.strength, spec.ridge, spec.apart)
        pilot.calibrate(neutral)
        return pilot

    # Acting

    def forward(self, x: Tensor, out: Tensor, call: Call) -> Tensor:
        if not len(self):
            return out
        action = self.act(x, out, call)
        return out if action is None else self.sides.add(x, out, action)

    def hear(self, vocabulary: Vocabulary) -> None:
        if self.router is not None:
            self.router.hear(vocabulary)

    def decide(self, x: Tensor, out: Tensor, call: Call, carry: dict[str, Tensor]) -> Tensor:
        if self.router is not None:
            row = self.router.decide(x, call, carry)
            side = self.sides.of_shards()[self.learned.shard.data[row.clamp(min=0)]]
            return torch.where(row >= 0, side, -1)
        return self.scope.decide(x, out, call, self.sides.deltas, carry)

    def observe(self, x: Tensor, out: Tensor, call: Call, carry: dict[str, Tensor]) -> None:
        if self.router is None:
            self.scope.observe(x, out, call, self.sides.deltas, carry)

    @property
    def reach(self) -> Reach:
        return self.prefixes.reach

    def remember(self, action: Action, call: Call) -> dict[str, Tensor]:
        last = last_action(action, call)
        said = call.tail if call.mode is Mode.BOUNDARY else _said(call, last["step"], self.window)
        assert said is not None
        return {**last, "code": code_after(last["edit"], said, last["step"].clamp(min=0))}

    def proceed(self, call: Call, state: dict[str, Tensor]) -> tuple[Action, dict[str, Tensor]]:
        tokens = torch.full_like(call.real, NO_TOKEN, dtype=torch.long) if call.tokens is None else call.tokens
        code = code_with(state["code"], tokens[:, 0])
        acts = (torch.minimum(state["edit"], state["step"]) >= 0) & self.prefixes.known(code) & call.real[:, 0]
        edit, step = torch.where(acts, state["edit"], -1), torch.where(acts, state["step"] + 1, -1)
        action = Action(edit.clamp(min=0)[:, None], step.clamp(min=0)[:, None], acts[:, None])
        return action, {"edit": edit, "step": step, "code": code}

    # Writing

    def draft(self, edits: Sequence[EncodedEdit], prompts: Prompts, owner: Tensor) -> Draft:
        return self.learned.draft(edits, prompts, owner)

    def commit(self, edits: Sequence[EncodedEdit], draft: Draft, prompts: Prompts) -> list[Kept]:
        self._follow(self.learned.commit(edits, draft, prompts))
        return [Kept() for _ in edits] if self.router is None else self.router.append(prompts, edits)

    def dependents(self, rows: Sequence[int]) -> list[list[int]]:
        if not self.replays:
            return []
        if self.spec.replay:  # every shard was kept away from the others' edits
            return [list(range(len(self)))]
        shards = sorted({int(self.learned.shard.used[row]) for row in rows})
        return [self.learned.rows_of(shard).tolist() for shard in shards]

    def rewriting(self, rows: Sequence[int]) -> AbstractContextManager[None]:
        return nullcontext() if self.spec.replay else self.learned.rewriting(rows)

    def erase(self, rows: Sequence[int]) -> None:
        kept = rows_but(rows, len(self), self.learned.shard.data.device)
        self._follow(self.learned.keep(kept))
        if self.router is not None:
            self.router.keep(kept)

    @property
    def rekeys(self) -> bool:
        return self.router is not None

    def rekey(self, rows: Sequence[int], edits: Sequence[EncodedEdit]) -> None:
        assert self.router is not None
        self.router.rekey(rows, edits)

    def _follow(self, changed: set[int]) -> None:
        """Make what follows from the shards and their edits anew."""
        learned, before = self.learned, self.sides.groups
        self.sides.follow(learned.shards, learned.full(), changed)
        if self.sides.groups[: len(before)] != before:  # decisions are for sides
            self.moved()
        side = self.sides.of_shards()[learned.shard.used]
        self.prefixes.fill(side, learned.targets.tokens.used)
        self.scope.scales = (
            torch.stack([self._scale(number, side == number) for number in range(len(self.sides))])
            if len(self.sides)
            else self.scope.scales[:0]
        )

        self.scope.threshold = self._threshold(side)

    def _threshold(self, side: Tensor) -> Tensor:
        """The calibrated one, and no less than what keeps edits from matching the sides of others."""
        scope, spec = self.scope, self.spec
        if spec.routing != "calibrated" or spec.threshold is not None or len(self.sides) < 2 or len(self) < FEWEST:
            return scope.base.clone()
        rows = torch.linspace(0, len(self) - 1, min(len(self), MOST), dtype=torch.float32, device=side.device).long()
        ends = self.learned.ends()[rows]
        scores = scope.of_tokens(ends, ends, self.sides.deltas) / scope.scales
        others = scores.scatter(1, side[rows, None], 0).amax(1)
        return torch.maximum(scope.base, others.quantile(1 - self.rate).clamp(max=HIGHEST))

    def _scale(self, number: int, rows: Tensor) -> Tensor:
        """What a side's own edits score; no prompt is for a side without any."""
        if not rows.any():
            return torch.full_like(self.scope.base, torch.inf)
        if isinstance(self.learned, Descent) and self.scope.routing != "calibrated":
            return self.learned.scores.used[rows].min() * self.spec.act_ratio * (1 - ROUNDING)
        ends = self.learned.ends()[rows]
        scores = self.scope.of_tokens(ends, ends, self.sides.deltas[number : number + 1])
        return scores[:, 0].median().clamp(min=1e-12)

    # Looking

    def match(self, prompts: Prompts, top: int) -> list[list[Match]]:
        """Every edit of a side has the side's score; they are ordered by how alike the prompts' ends are. With a router
        each has its own."""
        if not len(self):
            return [[] for _ in prompts.x]
        if self.router is not None:
            return self.router.rank(prompts, top)
        scores = self.scope.of_prompts(prompts.x, prompts.out, prompts.call, self.sides.deltas, {})[0][:, 0]
        ends = nn.functional.normalize(self.learned.ends().float(), dim=1)
        alike = end_inputs(prompts) @ ends.T
        side = self.sides.of_shards()[self.learned.shard.used]
        return [self._ranked(score, similarity, side, top) for score, similarity in zip(scores, alike, strict=True)]

    def _ranked(self, scores: Tensor, alike: Tensor, side: Tensor, top: int) -> list[Match]:
        threshold = float(self.scope.threshold)
        found: list[Match] = []
        for number in scores.argsort(descending=True).tolist():
            rows = (side == number).nonzero().squeeze(1)
            rows = rows[alike[rows].argsort(descending=True)][: top - len(found)]
            for row, similarity in zip(rows.tolist(), alike[rows].tolist(), strict=True):
                parts = {"similarity": similarity, "side": float(number)}
                found.append(Match(row, float(scores[number]), threshold, parts))
            if len(found) == top:
                break
        return found

    # Keeping

    FORMER = ((r"^learned\.", ""), (r"^scope\.base$", "threshold"))

    def restored(self) -> None:
        self._follow(set(range(len(self.learned.shards))))


def _said(call: Call, step: Tensor, window: int) -> Tensor:
    """Int64 `[B, W]`: the last `step` `[B]` real tokens of each row, and then anything."""
    columns = torch.arange(call.real.shape[1], device=call.real.device)
    last = torch.where(call.real, columns, 0).max(1, keepdim=True).values
    places = last - step.clamp(min=0)[:, None] + 1 + torch.arange(window, device=columns.device)
    tokens = torch.full_like(call.real, NO_TOKEN, dtype=torch.long) if call.tokens is None else call.tokens
    return tokens.gather(1, places.clamp(min=0, max=len(columns) - 1))

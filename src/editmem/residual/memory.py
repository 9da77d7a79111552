"""A memory that adds to the output of one module: a router that finds the edit, a storage that holds what it adds."""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import Call
from editmem.memory import Calibration, Draft, Kept, Match, Prompts, Spec
from editmem.residual.offsets import Storage
from editmem.routing.answers import Action, Reach, last_action, proceed, reach_of
from editmem.routing.decision import ActingMemory
from editmem.routing.router import Router, prompt_ends
from editmem.storage.targets import Targets, rows_but
from editmem.text.vocabulary import Vocabulary


class ResidualMemory(ActingMemory):
    """Output `W0 a + W_m (m * a)`: a router that finds the edit, and a storage that holds what it adds.

    Args:
        spec: the settings.
        router: finds the edit that a prompt asks for.
        storage: `FactoredStorage` or `SharedStorage`.
    """

    def __init__(self, spec: Spec, router: Router, storage: Storage) -> None:
        super().__init__()
        self.spec, self.router, self.storage = spec, router, storage
        self.replays = storage.replays
        self.targets = Targets()

    def hosted(self) -> Sequence[Tensor]:
        return self.storage.hosted()

    def calibrate(self, neutral: Calibration) -> None:
        self.router.calibrate(neutral)
        self.calibrated = True

    @property
    def calibrated_by(self) -> Collection[str]:
        return self.router.calibrated_by

    @property
    def by_words(self) -> bool:
        return self.router.by_words

    def read_back(self, text_of: Callable[[Sequence[int]], str]) -> None:
        self.router.read_back(text_of)

    def hear(self, vocabulary: Vocabulary) -> None:
        self.router.hear(vocabulary)

    def forward(self, x: Tensor, out: Tensor, call: Call) -> Tensor:
        if not len(self):
            return out
        action = self.act(x, out, call)
        return out if action is None else self.storage.add(x, out, action, self.router.edit_masks)

    @property
    def _answers(self) -> tuple[Tensor, Tensor]:
        return self.targets.tokens.data, self.targets.lengths.data

    def decide(self, x: Tensor, out: Tensor, call: Call, carry: dict[str, Tensor]) -> Tensor:
        return self.router.decide(x, call, carry)

    def observe(self, x: Tensor, out: Tensor, call: Call, carry: dict[str, Tensor]) -> None:
        self.router.observe(x, call, carry)

    @property
    def reach(self) -> Reach:
        return reach_of(*self._answers)

    def proceed(self, call: Call, state: dict[str, Tensor]) -> tuple[Action, dict[str, Tensor]]:
        action = proceed(call, state, *self._answers)
        return action, last_action(action, call)

    def draft(self, edits: Sequence[EncodedEdit], prompts: Prompts, owner: Tensor) -> Draft:
        column, _ = prompt_ends(prompts.call)
        rows = torch.arange(len(edits), device=column.device)
        scale = prompts.out[rows, column[: len(edits)]].float().square().mean(-1).sqrt()
        masks = self.router.prompt_masks(prompts, len(edits))
        return self.storage.draft(self.targets.count(edits), owner, scale, masks)

    def commit(self, edits: Sequence[EncodedEdit], draft: Draft, prompts: Prompts) -> list[Kept]:
        kept = self.router.append(prompts, edits)
        self.storage.commit(draft, self.targets.count(edits))
        self.targets.append(edits)
        return kept

    def dependents(self, rows: Sequence[int]) -> list[list[int]]:
        return [list(range(len(self)))] if self.replays else []

    def erase(self, rows: Sequence[int]) -> None:
        lengths = self.targets.lengths.used
        kept = rows_but(rows, len(self), lengths.device)
        self.storage.keep(kept, lengths)
        self.router.keep(kept)
        self.targets.keep(kept)

    def bury(self, rows: Sequence[int]) -> bool:
        if self.replays or not self.router.bury(rows):
            return False
        self.targets.bury(rows)
        return True

    @property
    def rekeys(self) -> bool:
        return self.router.rekeys

    def rekey(self, rows: Sequence[int], edits: Sequence[EncodedEdit]) -> None:
        self.router.rekey(rows, edits)

    def match(self, prompts: Prompts, top: int) -> list[list[Match]]:
        return self.router.rank(prompts, top) if len(self) else [[] for _ in prompts.x]

    def upgraded(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return self.storage.completed(super().upgraded(tensors), "storage.")

    def restored(self) -> None:
        count = len(self.targets)
        if any(len(getattr(self.router, name)) != count for name in self.router.keys):
            raise ValueError("lengths and router keys differ in their number of edits")
        self.storage.rebuild(self.targets.lengths.used)

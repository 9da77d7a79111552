"""MEMOIR's router (arXiv 2506.07899): prompts match where their TopHash masks overlap."""

from collections.abc import Sequence

import torch
from torch import Tensor

from editmem import kernels
from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import Call, Mode
from editmem.memory import Calibration, Kept, Match, Prompts
from editmem.routing.router import Router, at_prompt_ends
from editmem.storage.table import Rows

POOLINGS = ("last", "mean")


def pool(x: Tensor, call: Call, pooling: str, carry: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Features of the prompts that end in this forward.

    Args:
        x: `[B, T, D]`.
        call: the forward.
        pooling: "last", the prompt's last token; "mean", over all real tokens up to it (MEMOIR, B.2).
        carry: for "mean", sum and count of earlier forwards on the same cache; updated.

    Returns:
        As of `at_prompt_ends`.
    """
    if pooling == "mean":
        real = call.real[..., None]
        total, count = torch.where(real, x.float(), 0).cumsum(1), real.long().cumsum(1)
        if "sum" in carry:
            total, count = total + carry["sum"][:, None], count + carry["count"][:, None]
        carry["sum"], carry["count"] = total[:, -1], count[:, -1]
        x = total / count.clamp(min=1)
    return at_prompt_ends(x, call)


class TopHashRouter(Router):
    """MEMOIR's router: prompts match where their TopHash masks overlap (sections 3.1 and 3.3, equation 4).

    The score is the overlap as a share of k. Chance overlap of two masks is k / D and what unrelated
    prompts reach differs between models, so the threshold is set from neutral prompts unless given.

    Args:
        width: D.
        k: bits in a mask.
        pooling: "last" or "mean".
        threshold: the share from which an edit acts; None to calibrate it.
        false_match_rate: share of look-alikes that may match, for the calibration.
        seed: of the fixed permutation.
    """

    keys: tuple[str, ...] = ("masks",)

    def __init__(
        self, width: int, k: int, pooling: str, threshold: float | None, false_match_rate: float, seed: int
    ) -> None:
        super().__init__()
        self.width, self.k, self.pooling = width, k, pooling
        self.fixed_threshold, self.false_match_rate = threshold, false_match_rate
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("permutation", torch.randperm(width, generator=generator))
        self.register_buffer("background", torch.full((width,), torch.nan, dtype=torch.float32))
        self.register_buffer("threshold", torch.tensor(torch.nan, dtype=torch.float32))
        self.masks = Rows((kernels.words(width),), torch.int32)
        self.alive = Rows((), torch.bool, saved=False)

    permutation: Tensor
    background: Tensor
    threshold: Tensor

    def hash(self, features: Tensor) -> Tensor:
        """Packed masks of features `[..., D]`."""
        return kernels.tophash(features, self.background, self.permutation, self.k)

    def hash_prompts(self, prompts: Prompts) -> Tensor:
        """Packed masks of prompts, int32 `[B, words]`."""
        return self.hash(pool(prompts.x, prompts.call, self.pooling, {})[0][:, 0])

    @property
    def edit_masks(self) -> Tensor:
        return self.masks.data

    def prompt_masks(self, prompts: Prompts, count: int) -> Tensor:
        return self.hash_prompts(prompts)[:count]

    def calibrate(self, host: Calibration) -> None:
        features = pool(host.neutral[0].x, host.neutral[0].call, self.pooling, {})[0][:, 0].float()
        self.background = features.mean(0)
        if self.fixed_threshold is not None:
            self.threshold = torch.full_like(self.threshold, self.fixed_threshold)
            return
        masks = self.hash_prompts(host.hard_negatives[0])
        # Masks blur name and question, so that both kinds of look-alike count.
        questions = len(masks) // host.names
        place = torch.arange(len(masks), device=masks.device)
        name, question = place // questions, place % questions
        alike = (name[:, None] == name) ^ (question[:, None] == question)
        scores = kernels.overlaps(masks, masks)[alike].float() / self.k
        self.threshold = torch.quantile(scores, 1 - self.false_match_rate).clamp(min=1e-3)

    def append(self, prompts: Prompts, edits: Sequence[EncodedEdit]) -> list[Kept]:
        first = len(self.masks)
        self.masks.append(self.hash_prompts(prompts)[: len(edits)])
        self.alive.append(torch.ones(len(edits), dtype=torch.bool))
        return [Kept(alike) for alike in self.alike(prompts, range(first, len(self.masks)))]

    def keep(self, rows: Tensor) -> None:
        self.masks.keep(rows)
        self.alive.keep(rows)

    def decide(self, x: Tensor, call: Call, carry: dict[str, Tensor]) -> Tensor:
        features, found = pool(x, call, self.pooling, carry)
        overlap, row = self._match(self.hash(features).flatten(0, 1), 1)
        matched = found & ((overlap.float() / self.k) >= self.threshold).view(found.shape)
        edit = torch.where(matched, row.view(found.shape), -1)
        return edit.squeeze(1) if call.mode is Mode.BOUNDARY else edit

    def _match(self, masks: Tensor, top: int) -> tuple[Tensor, Tensor]:
        return kernels.match(masks, self.masks.data, self.alive.data, self.k, top)

    def observe(self, x: Tensor, call: Call, carry: dict[str, Tensor]) -> None:
        if self.pooling == "mean":
            pool(x, call, self.pooling, carry)

    def rank(self, prompts: Prompts, top: int) -> list[list[Match]]:
        overlap, row = self._match(self.hash_prompts(prompts), top)
        threshold = float(self.threshold)
        return [
            [Match(at, count / self.k, threshold) for count, at in zip(*pair, strict=True) if at >= 0]
            for pair in zip(overlap.tolist(), row.tolist(), strict=True)
        ]

    def restored(self) -> None:
        self.alive.replace(torch.ones(len(self.masks), dtype=torch.bool))

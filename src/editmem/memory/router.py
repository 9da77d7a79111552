"""Routers: which edit, if any, a prompt asks for. The replaceable part of the retrieval memories."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from editmem import kernels
from editmem.call import Call, Mode
from editmem.memory.base import Match, Prompts
from editmem.memory.rows import Rows

POOLINGS = ("last", "mean")


class Router(nn.Module, ABC):
    """Finds the edit that a prompt asks for.

    Keys are rows, in step with the rows of the memory that the router belongs to.

    Attributes:
        keys: names of the tensors in `tensors()` that have a row for each edit.
    """

    keys: tuple[str, ...]

    @abstractmethod
    def calibrate(self, neutral: Sequence[Prompts]) -> None:
        """Fix background and threshold from prompts that are not edits."""

    @abstractmethod
    def append(self, prompts: Prompts, count: int) -> list[list[str]]:
        """Add keys for the first `count` prompts; returns notes for the user on each."""

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Drop all keys but those in `rows` (int64, ascending)."""

    @abstractmethod
    def decide(self, x: Tensor, call: Call, carry: dict[str, Tensor]) -> Tensor:
        """The edit for each prompt that ends in this forward, -1 for none.

        Returns:
            int64 `[B]` in `Mode.BOUNDARY`, `[B, T]` in `Mode.SCAN`.
        """

    def observe(self, x: Tensor, call: Call, carry: dict[str, Tensor]) -> None:
        """Take note of tokens that end no prompt, where later decisions depend on them."""

    @abstractmethod
    def rank(self, prompts: Prompts, top: int) -> list[list[Match]]:
        """For each prompt the `top` nearest edits, best first."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All state."""

    @abstractmethod
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`."""


def prompt_ends(call: Call) -> tuple[Tensor, Tensor]:
    """The column of each row's last prompt token, int64 `[B]`, and whether it is in this forward, bool `[B]`."""
    assert call.step is not None
    is_end = (call.step == 0) & call.real
    return is_end.to(torch.uint8).argmax(1), is_end.any(1)


def pool(x: Tensor, call: Call, pooling: str, carry: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Features of the prompts that end in this forward.

    Args:
        x: `[B, T, D]`.
        call: the forward.
        pooling: "last", the prompt's last token; "mean", over all real tokens up to it (MEMOIR, B.2).
        carry: for "mean", sum and count of earlier forwards on the same cache; updated.

    Returns:
        features `[B, Q, D]` and bool `[B, Q]`, where Q is 1 if boundaries are known and T if not.
    """
    if pooling == "mean":
        real = call.real[..., None]
        total, count = torch.where(real, x.float(), 0).cumsum(1), real.long().cumsum(1)
        if "sum" in carry:
            total, count = total + carry["sum"][:, None], count + carry["count"][:, None]
        carry["sum"], carry["count"] = total[:, -1], count[:, -1]
        x = total / count.clamp(min=1)
    if call.mode is not Mode.BOUNDARY:
        return x, call.real
    column, found = prompt_ends(call)
    index = column[:, None, None].expand(-1, 1, x.shape[-1])
    return x.gather(1, index), found[:, None]


class TopHashRouter(Router):
    """MEMOIR's router: prompts match where their TopHash masks overlap (sections 3.1 and 3.3, equation 4).

    The score is the overlap as a share of k. Chance overlap of two masks is k / D and what unrelated
    prompts reach differs between models, so the threshold is set from neutral prompts unless given.

    Args:
        width: D.
        k: bits in a mask.
        pooling: "last" or "mean".
        threshold: the share from which an edit acts; None to calibrate it.
        false_match_rate: share of neutral prompts that may match another one, for the calibration.
        seed: of the fixed permutation.
    """

    keys = ("masks",)

    def __init__(
        self, width: int, k: int, pooling: str, threshold: float | None, false_match_rate: float, seed: int
    ) -> None:
        super().__init__()
        self.width, self.k, self.pooling = width, k, pooling
        self.fixed_threshold, self.false_match_rate = threshold, false_match_rate
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("permutation", torch.randperm(width, generator=generator))
        self.register_buffer("background", torch.full((width,), torch.nan))
        self.register_buffer("threshold", torch.tensor(torch.nan))
        self.masks = Rows((kernels.words(width),), torch.int32)

    permutation: Tensor
    background: Tensor
    threshold: Tensor

    def hash(self, features: Tensor) -> Tensor:
        """Packed masks of features `[..., D]`."""
        return kernels.tophash(features, self.background, self.permutation, self.k)

    def hash_prompts(self, prompts: Prompts) -> Tensor:
        """Packed masks of prompts, int32 `[B, words]`."""
        return self.hash(pool(prompts.x, prompts.call, self.pooling, {})[0][:, 0])

    def calibrate(self, neutral: Sequence[Prompts]) -> None:
        features = torch.cat([pool(p.x, p.call, self.pooling, {})[0][:, 0].float() for p in neutral])
        self.background = features.mean(0)
        if self.fixed_threshold is not None:
            self.threshold = torch.full_like(self.threshold, self.fixed_threshold)
            return
        masks = self.hash(features)
        counts = kernels.overlaps(masks, masks).float().fill_diagonal_(0)
        nearest = counts.max(1).values / self.k
        # Halfway between what unrelated prompts reach and a perfect match.
        self.threshold = (1 + torch.quantile(nearest, 1 - self.false_match_rate)) / 2

    def append(self, prompts: Prompts, count: int) -> list[list[str]]:
        self.masks.append(self.hash_prompts(prompts)[:count])
        return [[] for _ in range(count)]

    def keep(self, rows: Tensor) -> None:
        self.masks.keep(rows)

    def decide(self, x: Tensor, call: Call, carry: dict[str, Tensor]) -> Tensor:
        features, found = pool(x, call, self.pooling, carry)
        overlap, row = kernels.match(self.hash(features).flatten(0, 1), self.masks.data)
        matched = found & ((overlap / self.k) >= self.threshold).view(found.shape)
        edit = torch.where(matched, row.view(found.shape), -1)
        return edit.squeeze(1) if call.mode is Mode.BOUNDARY else edit

    def observe(self, x: Tensor, call: Call, carry: dict[str, Tensor]) -> None:
        if self.pooling == "mean":
            pool(x, call, self.pooling, carry)

    def rank(self, prompts: Prompts, top: int) -> list[list[Match]]:
        counts = kernels.overlaps(self.hash_prompts(prompts), self.masks.used)
        best = counts.sort(dim=1, descending=True, stable=True)
        threshold = float(self.threshold)
        return [
            [Match(int(row), int(count) / self.k, threshold) for count, row in zip(*pair, strict=True)]
            for pair in zip(best.values[:, :top].tolist(), best.indices[:, :top].tolist(), strict=True)
        ]

    def tensors(self) -> dict[str, Tensor]:
        return {
            "permutation": self.permutation,
            "background": self.background,
            "threshold": self.threshold,
            "masks": self.masks.used.contiguous(),
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        for name in ("permutation", "background", "threshold"):
            setattr(self, name, tensors[name].to(getattr(self, name)))
        self.masks.replace(tensors["masks"])

"""Routers: which edit, if any, a prompt asks for. The replaceable part of the retrieval memories."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from editmem import kernels
from editmem.call import Call, Mode
from editmem.memory.base import Calibration, Match, Prompts
from editmem.memory.rows import Rows
from editmem.words import BUCKETS, Words, heard

POOLINGS = ("last", "mean")


class Router(nn.Module, ABC):
    """Finds the edit that a prompt asks for.

    Keys are rows, in step with the rows of the memory that the router belongs to.

    Attributes:
        keys: names of the tensors in `tensors()` that have a row for each edit.
    """

    keys: tuple[str, ...]

    @abstractmethod
    def calibrate(self, host: Calibration) -> None:
        """Fix background and threshold from prompts that are not edits."""

    @abstractmethod
    def append(self, prompts: Prompts, subjects: Sequence[Sequence[int] | None]) -> list[list[str]]:
        """Add keys for the first prompts, as many as `subjects` (token ids; None where not given) has.

        Returns:
            For each, notes for the user.
        """

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

    def calibrate(self, host: Calibration) -> None:
        features = pool(host.neutral.x, host.neutral.call, self.pooling, {})[0][:, 0].float()
        self.background = features.mean(0)
        if self.fixed_threshold is not None:
            self.threshold = torch.full_like(self.threshold, self.fixed_threshold)
            return
        masks = torch.cat([self.hash_prompts(group) for group in host.alike])
        # Masks blur name and question, so that both kinds of look-alike count.
        group = torch.arange(len(masks), device=masks.device) // len(host.alike[0].x)
        form = torch.arange(len(masks), device=masks.device) % len(host.alike[0].x)
        alike = (group[:, None] == group) ^ (form[:, None] == form)
        scores = kernels.overlaps(masks, masks)[alike] / self.k
        self.threshold = torch.quantile(scores, 1 - self.false_match_rate).clamp(min=1e-3)

    def append(self, prompts: Prompts, subjects: Sequence[Sequence[int] | None]) -> list[list[str]]:
        self.masks.append(self.hash_prompts(prompts)[: len(subjects)])
        return [[] for _ in subjects]

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


class NameRouter(Router):
    """What is asked by the state at the prompt's end, about whom by the words.

    One similarity blurs the two: another subject asked about in the same words is as near as the same
    subject in other words. Here the score is the product of two: the cosine of the host's states at the
    prompts' ends, as they enter the memory's block, less the mean state of neutral prompts; and the share
    of the edit's words that the query has too, in which names (written with a capital, a digit, or in a
    script without case) weigh most and words of neutral prompts least. Words are compared folded (no case,
    no accents), however the tokenizer cuts them.

    Args:
        block_path: the block whose input is compared.
        width: d, of that input.
        threshold: the score from which an edit acts; None to calibrate it.
        false_match_rate: share of built-in pairs of prompts that name the same and ask something else whose
            states may be nearer than the threshold, for the calibration.
    """

    WIDTH = 12
    """Words kept of each edit, the weightiest."""
    COMMON = 0.05
    """Weight of a word that is not a name, against one that is."""

    keys = ("states", "named", "weights")

    def __init__(self, block_path: str, width: int, threshold: float | None, false_match_rate: float) -> None:
        super().__init__()
        self.block_path, self.fixed_threshold, self.false_match_rate = block_path, threshold, false_match_rate
        self.register_buffer("background", torch.full((width,), torch.nan))
        self.register_buffer("threshold", torch.tensor(torch.nan))
        self.register_buffer("neutral", torch.zeros(0, dtype=torch.int64))
        self.words = Words()
        self.states = Rows((width,), torch.float16)
        self.named = Rows((self.WIDTH,), torch.int32)
        self.weights = Rows((self.WIDTH,), torch.float32)

    background: Tensor
    threshold: Tensor
    neutral: Tensor

    def calibrate(self, host: Calibration) -> None:
        device = self.background.device
        self.words = host.words.to(device)
        said = [self.words.spoken(row[real].tolist()) for row, real in zip(*_texts(host.neutral), strict=True)]
        self.neutral = torch.tensor(sorted({word for words in said for word in words}), device=device)
        self.background = self._features(host.neutral.call)[0][:, 0].float().mean(0)
        if self.fixed_threshold is not None:
            self.threshold = torch.full_like(self.threshold, self.fixed_threshold)
            return
        pairs = [self._states(group.call)[0][:, 0] for group in host.alike]
        scores = torch.cat([(states @ states.T)[_different(states)] for states in pairs])
        self.threshold = torch.quantile(scores, 1 - self.false_match_rate).clamp(min=1e-3)

    def _features(self, call: Call) -> tuple[Tensor, Tensor]:
        return pool(call.residual[self.block_path], call, "last", {})

    def _states(self, call: Call) -> tuple[Tensor, Tensor]:
        """Unit states `[B, Q, d]` in float32 of the prompts that end in this forward, and which of them do."""
        features, found = self._features(call)
        return nn.functional.normalize(features.float() - self.background, dim=-1), found

    def append(self, prompts: Prompts, subjects: Sequence[Sequence[int] | None]) -> list[list[str]]:
        texts, real = _texts(prompts)
        keys = [self._words_of(texts[row][real[row]].tolist(), subject) for row, subject in enumerate(subjects)]
        self.named.append(torch.stack([named for named, _ in keys]))
        self.weights.append(torch.stack([weights for _, weights in keys]))
        self.states.append(self._states(prompts.call)[0][: len(subjects), 0])
        return [[] for _ in subjects]

    def _words_of(self, text: Sequence[int], subject: Sequence[int] | None) -> tuple[Tensor, Tensor]:
        """Buckets int32 and weights float32 (sum 1) of an edit's weightiest words, `[WIDTH]` each."""
        spoken = self.words.spoken(text)
        if subject is not None and (about := self.words.spoken(subject)):
            spoken = {word: word in about for word in spoken}
        neutral = set(self.neutral.tolist())
        # A neutral word with a capital stands at the beginning of a sentence.
        weigh = {word: 1.0 if name and word not in neutral else self.COMMON for word, name in spoken.items()}
        weigh = {word: weight * (0.1 if word in neutral else 1.0) for word, weight in weigh.items()}
        best = sorted(weigh.items(), key=lambda item: -item[1])[: self.WIDTH]
        named, weights = torch.zeros(self.WIDTH, dtype=torch.int32), torch.zeros(self.WIDTH)
        for i, (word, weight) in enumerate(best):
            named[i], weights[i] = word % BUCKETS, weight
        return named, weights / weights.sum().clamp(min=1e-6)

    def keep(self, rows: Tensor) -> None:
        for table in (self.states, self.named, self.weights):
            table.keep(rows)

    def decide(self, x: Tensor, call: Call, carry: dict[str, Tensor]) -> Tensor:
        states, found = self._states(call)
        alike = states @ self.states.data.float().T
        best, row = (alike.clamp(min=0) * self._shared_words(call, carry)).max(-1)
        edit = torch.where(found & (best >= self.threshold), row, -1)
        return edit.squeeze(1) if call.mode is Mode.BOUNDARY else edit

    def _shared_words(self, call: Call, carry: dict[str, Tensor]) -> Tensor:
        """Weight of each edit's words that were heard by the prompt's end: float32 `[B, Q, N]`."""
        text, first = self._text(call, carry)
        when = heard(self.words.hashes(text))[:, self.named.data.long()]
        if call.mode is Mode.BOUNDARY:
            return torch.where(when < text.shape[1], self.weights.data, 0).sum(-1)[:, None]
        now = torch.arange(first, text.shape[1], device=text.device)
        shared = torch.zeros((text.shape[0], len(now), self.named.data.shape[0]), device=text.device)
        for word in range(self.WIDTH):
            shared += torch.where(when[:, None, :, word] <= now[:, None], self.weights.data[:, word], 0)
        return shared

    def _text(self, call: Call, carry: dict[str, Tensor]) -> tuple[Tensor, int]:
        """The text so far, `[B, S]`, and at which column this forward's tokens begin in it."""
        if call.text is not None:
            return call.text, 0
        tokens = torch.full_like(call.real, -1, dtype=torch.long) if call.tokens is None else call.tokens
        wanted = call.real if call.step is None else call.real & (call.step <= 0)
        tokens = torch.where(wanted, tokens, -1)
        before = carry.get("text")
        carry["text"] = tokens if before is None else torch.cat([before, tokens], 1)
        return carry["text"], 0 if before is None else before.shape[1]

    def rank(self, prompts: Prompts, top: int) -> list[list[Match]]:
        alike = (self._states(prompts.call)[0][:, 0] @ self.states.used.float().T).clamp(min=0)
        shared = self._shared_words(prompts.call, {})[:, 0, : len(self.states)]
        best = (alike * shared).sort(dim=1, descending=True, stable=True)
        threshold = float(self.threshold)
        return [
            [
                Match(i, s, threshold, {"words": float(shared[row, i]), "state": float(alike[row, i])})
                for s, i in zip(best.values[row, :top].tolist(), best.indices[row, :top].tolist(), strict=True)
            ]
            for row in range(len(alike))
        ]

    def tensors(self) -> dict[str, Tensor]:
        words = {f"words.{name}": tensor for name, tensor in self.words.named_buffers()}
        tables = {name: getattr(self, name).used.contiguous() for name in self.keys}
        fixed = {"background": self.background, "threshold": self.threshold, "neutral": self.neutral}
        return {**fixed, **tables, **words}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        device = self.background.device
        for name in ("background", "threshold", "neutral"):
            setattr(self, name, tensors[name].to(device))
        for name in self.keys:
            getattr(self, name).replace(tensors[name])
        for name, _ in list(self.words.named_buffers()):
            setattr(self.words, name, tensors[f"words.{name}"].to(device))


def _different(states: Tensor) -> Tensor:
    return ~torch.eye(len(states), dtype=torch.bool, device=states.device)


def _texts(prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Token ids `[B, T]` of prompts and which of them are the prompt's own, bool `[B, T]`."""
    call = prompts.call
    assert call.tokens is not None
    assert call.step is not None
    return call.tokens, call.real & (call.step <= 0)

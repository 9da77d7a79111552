"""What edits add to the output of a site: the contract of a storage, and offsets kept apart."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from editmem import kernels
from editmem.hosts.forward import Call
from editmem.memory import Draft
from editmem.routing.answers import Action
from editmem.state import Stored
from editmem.storage.table import Rows
from editmem.storage.targets import spans, starts


class Storage(Stored, ABC):
    """Holds what edits add.

    Attributes:
        replays: whether edits share weights, so that dropping one means writing the others anew.
    """

    replays: bool

    @abstractmethod
    def add(self, x: Tensor, out: Tensor, action: Action, masks: Tensor | None) -> Tensor:
        """`out` `[B, T, d]` plus what the acting edits add; other tokens are `out` bit for bit.

        Args:
            x: `[B, T, D]`, what went into the site.
            out: what came out.
            action: which edit acts where.
            masks: int32 `[N, words]`, the edits' packed TopHash masks, for storages that read by mask.
        """

    @abstractmethod
    def draft(self, lengths: Tensor, owner: Tensor, scale: Tensor, masks: Tensor | None) -> Draft:
        """Begin to write E edits.

        Args:
            lengths: int64 `[E]`, tokens in each target.
            owner: int64 `[B]`, which edit each row of the batch belongs to.
            scale: float32 `[E]`, root mean square of the site's output at each edit's prompt end.
            masks: int32 `[E, words]`, their packed TopHash masks.
        """

    @abstractmethod
    def commit(self, draft: Draft, lengths: Tensor) -> None:
        """Keep what was drafted."""

    @abstractmethod
    def keep(self, rows: Tensor, lengths: Tensor) -> None:
        """Drop all edits but those in `rows`; `lengths` are those of all edits held until now."""

    def hosted(self) -> Sequence[Tensor]:
        """As `Memory.hosted`."""
        return []

    def rebuild(self, lengths: Tensor) -> None:
        """After loading: work out what follows from the lengths of all targets."""


class FactoredStorage(Storage):
    """Each edit's output offsets, one row for each token of its target.

    Below the site the host is frozen, so while an edit is learned the activations at its own tokens never
    change, and every gradient step on W_m there does no more than move the output at those tokens. The
    moved output is therefore all there is to keep, and edits do not touch each other.

    Args:
        width: d, of the site's output.
        dtype: of the site's output; offsets are kept in it.
        rate: Adam's step size, as a share of the root mean square of the site's output.
    """

    replays = False

    def __init__(self, width: int, dtype: torch.dtype, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.offsets = Rows((width,), dtype)
        self.starts = Rows((), torch.long, saved=False)

    def add(self, x: Tensor, out: Tensor, action: Action, masks: Tensor | None) -> Tensor:
        index = torch.where(action.active, self.starts.data[action.edit] + action.step, 0)
        if torch.is_grad_enabled():
            return kernels.factored_delta(out, self.offsets.data, index, action.active)
        kernels.factored_delta_(out, self.offsets.data, index, action.active)
        return out

    def draft(self, lengths: Tensor, owner: Tensor, scale: Tensor, masks: Tensor | None) -> "OffsetDraft":
        offsets = torch.zeros(
            (lengths.shape[0], int(lengths.max()), self.offsets.data.shape[1]),
            dtype=torch.float32,
            device=lengths.device,
        )
        return OffsetDraft(offsets, lengths, owner, self.rate * scale, self.offsets.data.dtype)

    def commit(self, draft: Draft, lengths: Tensor) -> None:
        assert isinstance(draft, OffsetDraft)
        self.starts.append(len(self.offsets) + starts(lengths))
        used = torch.arange(draft.offsets.shape[1], device=lengths.device) < lengths[:, None]
        self.offsets.append(draft.offsets.detach()[used])

    def hosted(self) -> Sequence[Tensor]:
        return [self.offsets.data]

    def keep(self, rows: Tensor, lengths: Tensor) -> None:
        self.offsets.keep(spans(lengths, rows))
        self.starts.replace(starts(lengths[rows]))

    def rebuild(self, lengths: Tensor) -> None:
        self.starts.replace(starts(lengths))


class OffsetDraft(Draft):
    """Offsets while they are learned, `[E, L, d]` in float32."""

    def __init__(self, offsets: Tensor, lengths: Tensor, owner: Tensor, rate: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.offsets = nn.Parameter(offsets)
        self.lengths, self.owner, self.dtype = lengths, owner, dtype
        self.rate = rate[:, None, None]
        self.mean, self.square, self.count = torch.zeros_like(offsets), torch.zeros_like(offsets[..., :1]), 0

    def forward(self, x: Tensor, out: Tensor, call: Call) -> Tensor:
        assert call.step is not None
        active = (call.step >= 0) & (call.step < self.lengths[self.owner][:, None])
        # Rounded as it will be stored, so that what is learned is what will be read.
        stored = self.offsets + (self.offsets.to(self.dtype).float() - self.offsets).detach()
        index = self.owner[:, None] * stored.shape[1] + torch.where(active, call.step, 0)
        return kernels.factored_delta(out, stored.flatten(0, 1), index, active)

    def only(self, rows: Tensor) -> bool:
        self.owner = self.owner[rows.to(self.owner.device)]
        return True

    def step(self, loss: Tensor, unfinished: Tensor) -> None:
        (gradient,) = torch.autograd.grad(loss, self.offsets)
        self.count += 1
        with torch.no_grad():
            self.mean.lerp_(gradient, 0.2)
            # Adam with one second moment for each offset, so that steps keep the gradient's direction.
            self.square.lerp_(gradient.square().mean(-1, keepdim=True), 0.1)
            mean, square = self.mean / (1 - 0.8**self.count), self.square / (1 - 0.9**self.count)
            update = self.rate * mean / (square.sqrt() + 1e-12)
            self.offsets.sub_(torch.where(unfinished.to(update.device)[:, None, None], update, 0))

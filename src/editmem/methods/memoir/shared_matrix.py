"""MEMOIR's matrix W_m that all edits share (arXiv 2506.07899, equation 4)."""

import torch
from torch import Tensor, nn

from editmem import kernels
from editmem.hosts.forward import Call
from editmem.memory import Draft
from editmem.residual.offsets import Storage
from editmem.routing.answers import Action


class SharedStorage(Storage):
    """One matrix W_m for all edits; an edit reads and writes the columns in its mask (MEMOIR, equation 4).

    Args:
        in_features: D.
        out_features: d.
        rate: step size of gradient descent, with the gradient's norm clipped to 1 (MEMOIR, A.4.3).
    """

    replays = True

    weight: Tensor

    def __init__(self, in_features: int, out_features: int, rate: float) -> None:
        super().__init__()
        self.rate, self.shape = rate, torch.Size((out_features, in_features))
        self.register_buffer("weight", torch.zeros((out_features, in_features), dtype=torch.float32))

    def add(self, x: Tensor, out: Tensor, action: Action, masks: Tensor | None) -> Tensor:
        assert masks is not None
        if torch.is_grad_enabled():
            return kernels.shared_delta(out, x, self.weight, masks, action.edit, action.active)
        kernels.shared_delta_(out, x, self.weight, masks, action.edit, action.active)
        return out

    def draft(self, lengths: Tensor, owner: Tensor, scale: Tensor, masks: Tensor | None) -> "ColumnDraft":
        assert masks is not None
        return ColumnDraft(self.weight.clone(), masks, owner, lengths[owner], self.rate)

    def commit(self, draft: Draft, lengths: Tensor) -> None:
        assert isinstance(draft, ColumnDraft)
        self.weight = draft.weight.detach()

    def keep(self, rows: Tensor, lengths: Tensor) -> None:
        self.weight = torch.zeros_like(self.weight)

    def rebuild(self, lengths: Tensor) -> None:
        if self.weight.shape != self.shape:
            raise ValueError(f"weight has shape {tuple(self.weight.shape)}, expected {tuple(self.shape)}")


class ColumnDraft(Draft):
    """W_m `[d, D]` while edits are learned in the columns of their masks."""

    def __init__(self, weight: Tensor, masks: Tensor, owner: Tensor, lengths: Tensor, rate: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.masks, self.owner, self.lengths, self.rate = masks, owner, lengths, rate

    def forward(self, x: Tensor, out: Tensor, call: Call) -> Tensor:
        assert call.step is not None
        active = (call.step >= 0) & (call.step < self.lengths[:, None])
        edit = self.owner[:, None].expand_as(active)
        return kernels.shared_delta(out, x, self.weight, self.masks, edit, active)

    def step(self, loss: Tensor, unfinished: Tensor) -> None:
        (gradient,) = torch.autograd.grad(loss, self.weight)
        with torch.no_grad():
            self.weight.sub_(self.rate * gradient / gradient.norm().clamp(min=1.0))

"""What a block is to put out at a subject's last token, learned by gradient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.baselines.encoding import IGNORED, Batch
from benchmarks.baselines.sites import Site, hooked, replaying


@dataclass(frozen=True)
class ValueSettings:
    """How values are learned.

    Attributes:
        steps: of Adam, at most.
        rate: step size, in units of the block output's root mean square.
        stop: loss of an edit's worst row, in nats, from which on it is done.
        kl: weight of the divergence from what the host said of the subject.
        decay: weight of |offset|² / |output|².
        clamp: an offset is at most so long, in units of the output.
    """

    steps: int = 15
    rate: float = 0.5
    stop: float = 0.05
    kl: float = 0.0625
    decay: float = 0.05
    clamp: float = 1.0


@dataclass(frozen=True)
class Owners:
    """Which edit each row of a batch belongs to.

    Attributes:
        edits: int64 `[B]`, of E edits.
        count: E.
    """

    edits: Tensor
    count: int


def learn_offsets(
    model: Any, site: Site, batch: Batch, owners: Owners, outputs: Tensor, settings: ValueSettings
) -> Tensor:
    """Offsets to the site's output at each edit's subject with which the host gives the target.

    ROME's optimisation of v* (arXiv 2202.05262, section 3.1, equation 4), for many edits at once: the mean loss of
    the target over an edit's rows, the divergence over its rows without a target ("{subject} is a"), weight decay.
    As in its published code there is a bound on the offset's length; other than there, an edit stops on its own.

    Args:
        model: the host.
        site: the highest one that is edited.
        batch: every row of the edits.
        owners: of the rows.
        outputs: float32 `[E, D]`, what the site's block puts out at the subjects.
        settings: see `ValueSettings`.

    Returns:
        float32 `[E, D]`.
    """
    lengths = outputs.norm(dim=1, keepdim=True)
    step = settings.rate * float(lengths.mean()) / outputs.shape[1] ** 0.5
    offsets = torch.zeros_like(outputs, requires_grad=True)
    optimizer = torch.optim.Adam([offsets], lr=step)
    with replaying(site.below), hooked([site.module.register_forward_hook(_adding(batch, owners, offsets))]):
        with torch.no_grad():
            said_before = batch.logits(model).log_softmax(-1)
        for _ in range(settings.steps):
            logits = batch.logits(model)
            losses, drifts = _by_edit(batch, owners, logits, said_before)
            unfinished = losses.detach()[:, 1] > settings.stop
            if not bool(unfinished.any()):
                break
            decay = (offsets / lengths).square().sum(1)
            total = losses[:, 0] + settings.kl * drifts + settings.decay * decay
            (offsets.grad,) = torch.autograd.grad(total.sum(), offsets)
            kept = offsets.detach().clone()
            optimizer.step()
            with torch.no_grad():
                shrink = (settings.clamp * lengths / offsets.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
                offsets.copy_(torch.where(unfinished[:, None], offsets * shrink, kept))
    return offsets.detach()


def _adding(batch: Batch, owners: Owners, offsets: Tensor) -> Any:
    """A hook that adds to a module's output at the subjects."""
    rows = torch.arange(len(batch.ids), device=batch.ids.device)

    def hook(module: nn.Module, given: Sequence[Tensor], said: Tensor) -> Tensor:
        return said.index_put((rows, batch.subjects), offsets[owners.edits].to(said.dtype), accumulate=True)

    return hook


def _by_edit(batch: Batch, owners: Owners, logits: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of each edit, mean and worst of its rows, `[E, 2]`, and divergence from what was said before, `[E]`."""
    rows = batch.losses(logits)
    asked = torch.zeros_like(rows, dtype=torch.bool).index_fill(0, batch.rows[batch.labels != IGNORED], True)
    counts = owners.edits[asked].bincount(minlength=owners.count)
    mean = rows.new_zeros(owners.count).index_add(0, owners.edits, rows) / counts
    worst = rows.new_zeros(owners.count).scatter_reduce(0, owners.edits, rows.detach(), "amax")
    free = batch.labels == IGNORED
    now, then = logits[free].log_softmax(-1), before[free]
    drift = (then.exp() * (then - now)).sum(-1)
    drifts = rows.new_zeros(owners.count).index_add(0, owners.edits[batch.rows[free]], drift)
    return torch.stack([mean, worst], 1), drifts

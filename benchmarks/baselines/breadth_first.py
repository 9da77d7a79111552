"""Fine-tuning done right: epochs over all edits in small batches, of one late down-projection."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.func import functional_call

from benchmarks.baselines.encoding import Batch
from benchmarks.baselines.options import settings
from benchmarks.baselines.sites import pick, replaying
from benchmarks.baselines.weights import JointEdits
from benchmarks.records import Record


@dataclass(frozen=True)
class BreadthFirstSettings:
    """Settings of breadth-first fine-tuning.

    Attributes:
        layer: number of the block; None for the one at `depth`, a share of all blocks.
        depth: see `layer`.
        rate: step size of Adam, in units of the weight's standard deviation.
        epochs: over all edits, at most.
        stop: mean loss of an epoch, in nats, from which on it is done.
        batch: edits of a step.
    """

    layer: int | None = None
    depth: float = 0.9
    rate: float = 0.02
    epochs: int = 30
    stop: float = 0.02
    batch: int = 16


class BreadthFirst(JointEdits):
    """LocFT-BF (Yang et al., arXiv 2509.22072): the ordinary pipeline of fine-tuning, in one tuned place.

    Every edit is seen once in an epoch, in place of being fitted before the next one comes. Edits that come later are
    trained with all that came before, from the unedited weights.
    """

    name = "finetune-breadth"
    batch_size = 1 << 20  # what comes between two evaluations, at once

    def __init__(self, model: Any, tokenizer: Any, options: Mapping[str, Any], seed: int) -> None:
        self.settings = settings(self.name, BreadthFirstSettings(), options)
        layers = [] if self.settings.layer is None else [self.settings.layer]
        chosen = pick(self.name, model, layers, self.settings.depth)
        super().__init__(chosen, model, tokenizer, options, seed)
        self.together = self.batch_size
        self.unit = float(self.before[chosen[0].path].float().std())

    def learn(self, records: Sequence[Record]) -> None:
        (site,), s = self.sites, self.settings
        self._set(self.before)
        rows = self.rows(list(self.records.values()))
        matrix = site.matrix().requires_grad_()
        optimizer = torch.optim.Adam([matrix], lr=s.rate * self.unit)
        order = random.Random(self.seed)
        for _ in range(s.epochs):
            order.shuffle(rows)
            parts = (rows[i : i + s.batch] for i in range(0, len(rows), s.batch))
            losses = [self._step(self.batch(part), matrix, optimizer) for part in parts]
            if math.fsum(losses) / len(losses) < s.stop:
                break
        self.put(site, matrix.detach())

    def _step(self, batch: Batch, matrix: torch.Tensor, optimizer: torch.optim.Optimizer) -> float:
        (site,) = self.sites
        weights = {f"{site.path}.weight": site.stored(matrix).to(site.module.weight.dtype)}
        with replaying(site.below):
            logits = batch.logits(self.model, lambda **asked: functional_call(self.model, weights, kwargs=asked))
            loss = batch.losses(logits).mean()
            (matrix.grad,) = torch.autograd.grad(loss, matrix)
        optimizer.step()
        return loss.item()

    def took(self, batch: Batch) -> list[bool | None]:
        return [None] * len(batch.ids)

"""FT-L: fine-tuning of one feed-forward output, held near where it was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.func import functional_call

from benchmarks.baselines.encoding import Batch
from benchmarks.baselines.options import settings
from benchmarks.baselines.sites import pick, replaying
from benchmarks.baselines.weights import WeightEdits
from benchmarks.records import Record


@dataclass(frozen=True)
class FineTuneSettings:
    """Settings of FT-L.

    Attributes:
        layer: number of the block; None for the one at `depth`, a share of all blocks.
        depth: see `layer`.
        rate: step size of Adam, in units of the weight's standard deviation.
        steps: at most so many for a batch.
        norm: no weight moves further than this in one batch (L-infinity), in the same units. The paper's 5e-4 and
            less belong to its hosts.
        stop: mean loss of the batch, in nats, from which on it is done.
        batch: edits that are trained together.
    """

    layer: int | None = None
    depth: float = 1.0
    rate: float = 0.1
    steps: int = 25
    norm: float = 0.2
    stop: float = 0.02
    batch: int = 8


class FineTune(WeightEdits):
    """FT-L, ROME's constrained fine-tuning (arXiv 2202.05262, section 3): Adam on the down-projection of one block,
    the loss that of the target's tokens, the change clamped after each step.

    Each batch starts from where the last one left the weights, which is also what the clamp counts from, as EasyEdit
    has it.
    """

    name = "finetune"

    def __init__(self, model: Any, tokenizer: Any, options: Mapping[str, Any], seed: int) -> None:
        self.settings = settings(self.name, FineTuneSettings(), options)
        layers = [] if self.settings.layer is None else [self.settings.layer]
        chosen = pick(self.name, model, layers, self.settings.depth)
        super().__init__(chosen, model, tokenizer, options, seed)
        self.together = self.settings.batch
        self.unit = float(self.before[chosen[0].path].float().std())

    def learn(self, records: Sequence[Record]) -> None:
        (site,), s = self.sites, self.settings
        batch = self.batch(self.rows(records))
        start = self.matrices[site.path]
        matrix = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([matrix], lr=s.rate * self.unit)
        with replaying(site.below):
            for _ in range(s.steps):
                weight = site.stored(matrix).to(site.module.weight.dtype)
                loss = batch.losses(self._logits(batch, f"{site.path}.weight", weight)).mean()
                if loss.item() < s.stop:
                    break
                (matrix.grad,) = torch.autograd.grad(loss, matrix)
                optimizer.step()
                with torch.no_grad():
                    matrix.copy_(torch.clamp(matrix, start - s.norm * self.unit, start + s.norm * self.unit))
        self.put(site, matrix.detach())

    def _logits(self, batch: Batch, name: str, weight: torch.Tensor) -> torch.Tensor:
        """As `Batch.logits`, with one parameter replaced."""
        return batch.logits(self.model, lambda **asked: functional_call(self.model, {name: weight}, kwargs=asked))

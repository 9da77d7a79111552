"""FT: fine-tuning of the feed-forward maps of one block."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.func import functional_call

from benchmarks.baselines.options import settings
from benchmarks.baselines.weights import load_tensors, save_tensors
from benchmarks.session import no_grad_host
from benchmarks.visual.baselines.decoder import UP_AND_DOWN, decoder_maps
from benchmarks.visual.records import Change
from benchmarks.visual.session import VisualSession


@dataclass(frozen=True)
class VisualFineTuneSettings:
    """Settings of FT.

    Attributes:
        rate: step size of AdamW.
        steps: for each edit.
        decay: weight decay of AdamW.
        targets: the maps that are trained, by the last part of their names.
        layers: how many blocks, the last ones.
    """

    rate: float = 1e-4
    steps: int = 10
    decay: float = 0.01
    targets: tuple[str, ...] = UP_AND_DOWN
    layers: int = 1


class VisualFineTune(VisualSession):
    """FT as MemEIC sets it up (arXiv 2510.25798): up- and down-projection of the last block, AdamW at 1e-4, ten steps
    an edit, each edit starting from where the last one left the weights. The loss is that of the target's tokens.

    The weights that learn are kept in float32, whatever the host computes in, so that small changes add up.
    """

    name = "finetune"

    def __init__(self, model: Any, processor: Any, options: Mapping[str, Any], seed: int) -> None:
        super().__init__(model, processor, options, seed)
        self.settings = s = settings(self.name, VisualFineTuneSettings(), options)
        blocks = decoder_maps(self.name, model, s.targets)[-max(1, int(s.layers)) :]
        self.hosts = {f"{path}.weight": linear.weight for block in blocks for path, linear in block.items()}
        self.weights = {name: weight.detach().float().clone() for name, weight in self.hosts.items()}

    def write(self, change: Change) -> bool | None:
        s, batch = self.settings, self.reader.batch([change.question], [change.target])
        learned = {name: weight.clone().requires_grad_() for name, weight in self.weights.items()}
        optimizer = torch.optim.AdamW(learned.values(), lr=s.rate, weight_decay=s.decay)
        with no_grad_host(self.model):
            for _ in range(s.steps):
                given = {name: weight.to(self.hosts[name].dtype) for name, weight in learned.items()}
                logits = functional_call(self.model, given, kwargs={**batch.inputs, "use_cache": False}).logits
                optimizer.zero_grad()
                batch.loss(logits).backward()
                optimizer.step()
        self._put({name: weight.detach() for name, weight in learned.items()})
        return self.took(change)

    def _put(self, weights: Mapping[str, torch.Tensor]) -> None:
        self.weights = dict(weights)
        with torch.no_grad():
            for name, weight in self.weights.items():
                self.hosts[name].copy_(weight)

    def save(self, folder: Path) -> None:
        save_tensors(self.weights, folder)

    def restore(self, folder: Path) -> None:
        self._put(load_tensors(folder, self.model.device))

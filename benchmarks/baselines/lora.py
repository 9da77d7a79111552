"""One low-rank adapter (LoRA, arXiv 2106.09685), trained on the edits in their order."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from benchmarks.baselines.options import settings
from benchmarks.baselines.sites import sites
from benchmarks.baselines.weights import Batches, load_tensors, packed, save_tensors
from benchmarks.records import Record


@dataclass(frozen=True)
class LoraSettings:
    """Settings of the adapter.

    Attributes:
        rank, alpha: of every low-rank product; it is scaled by alpha / rank.
        targets: names of the adapted modules, as `peft` takes them; none for every feed-forward down-projection.
        rate: step size of Adam.
        steps: at most so many for a batch.
        stop: mean loss of the batch, in nats, from which on it is done.
        batch: edits that are trained together.
    """

    rank: int = 8
    alpha: int = 16
    targets: tuple[str, ...] = ()
    rate: float = 2e-3
    steps: int = 50
    stop: float = 0.05
    batch: int = 32


class LowRank(Batches):
    """LoRA on the target's tokens, through `peft`; Adam starts anew with every batch."""

    name = "lora"

    def __init__(self, model: Any, tokenizer: Any, options: Mapping[str, Any], seed: int) -> None:
        self.settings = s = settings(self.name, LoraSettings(), options)
        targets = list(s.targets) or [site.path for site in sites(model)]
        config = LoraConfig(r=s.rank, lora_alpha=s.alpha, target_modules=targets, lora_dropout=0.0)
        super().__init__(get_peft_model(model, config), tokenizer, options, seed)
        self.model.eval()
        self.together = s.batch
        self.adapter = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self._initialise()

    def _initialise(self) -> None:
        """Draw the first factors as `peft` does, uniformly by Kaiming's rule, but from the session's own seed."""
        generator = torch.Generator().manual_seed(self.seed)
        for name, parameter in self.adapter.items():
            if ".lora_A." in name:
                bound = 1 / math.sqrt(parameter.shape[1])
                drawn = torch.rand(parameter.shape, generator=generator) * 2 - 1
                parameter.data.copy_(bound * drawn)

    def learn(self, records: Sequence[Record]) -> None:
        batch = self.batch(self.rows(records))
        parameters = list(self.adapter.values())
        optimizer = torch.optim.Adam(parameters, lr=self.settings.rate)
        for _ in range(self.settings.steps):
            loss = batch.losses(batch.logits(self.model)).mean()
            if loss.item() < self.settings.stop:
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _tensors(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.adapter.items()}

    def save(self, folder: Path) -> None:
        save_tensors(self._tensors(), folder)

    def restore(self, folder: Path) -> None:
        tensors = load_tensors(folder, self.model.device)
        with torch.no_grad():
            for name, parameter in self.adapter.items():
                parameter.copy_(tensors[name])

    def bytes(self) -> int:
        return len(packed(self._tensors()))

    @contextmanager
    def off(self) -> Iterator[None]:
        with self.model.disable_adapter():
            yield

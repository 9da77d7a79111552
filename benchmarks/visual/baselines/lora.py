"""One low-rank adapter, shared by all edits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from benchmarks.baselines.options import settings
from benchmarks.baselines.weights import load_tensors, save_tensors
from benchmarks.visual.baselines.decoder import UP_AND_DOWN, decoder_maps
from benchmarks.visual.records import Change
from benchmarks.visual.session import VisualSession


@dataclass(frozen=True)
class VisualLoraSettings:
    """Settings of the adapter.

    Attributes:
        rank, alpha: of every low-rank product; it is scaled by alpha / rank.
        targets: the maps that are adapted, by the last part of their names.
        rate: step size of AdamW.
        steps: for each edit.
        decay: weight decay of AdamW.
    """

    rank: int = 16
    alpha: int = 32
    targets: tuple[str, ...] = UP_AND_DOWN
    rate: float = 1e-4
    steps: int = 10
    decay: float = 0.01


class VisualLora(VisualSession):
    """MemEIC's baseline of one LoRA for both modalities (arXiv 2510.25798): rank 16 on the up- and down-projections of
    every block, ten steps of AdamW at 1e-4 an edit, on the target's tokens. AdamW starts anew with every edit."""

    name = "lora"

    def __init__(self, model: Any, processor: Any, options: Mapping[str, Any], seed: int) -> None:
        self.settings = s = settings(self.name, VisualLoraSettings(), options)
        super().__init__(adapted(self.name, model, s.targets, s.rank, s.alpha, seed), processor, options, seed)
        self.factors = factors(self.model)

    def write(self, change: Change) -> bool | None:
        s, batch = self.settings, self.reader.batch([change.question], [change.target])
        optimizer = torch.optim.AdamW(self.factors.values(), lr=s.rate, weight_decay=s.decay)
        for _ in range(s.steps):
            optimizer.zero_grad()
            batch.loss(self.model(**batch.inputs, use_cache=False).logits).backward()
            optimizer.step()
        return self.took(change)

    def save(self, folder: Path) -> None:
        save_tensors(self.factors, folder)

    def restore(self, folder: Path) -> None:
        tensors = load_tensors(folder, self.model.device)
        with torch.no_grad():
            for name, parameter in self.factors.items():
                parameter.copy_(tensors[name])


def adapted(method: str, model: Any, targets: Sequence[str], rank: int, alpha: int, seed: int) -> PeftModel:
    """The model with an adapter (LoRA, arXiv 2106.09685) that is nothing yet, in evaluation mode.

    All but the adapter is frozen. The first factors are drawn as `peft` does, by Kaiming's uniform rule, from the seed.

    Args:
        method: for messages.
        model: the host.
        targets: the maps that are adapted, in every block of the language decoder, by the last part of their names.
        rank, alpha: of every low-rank product; it is scaled by alpha / rank.
        seed: see above.
    """
    paths = [path for block in decoder_maps(method, model, targets) for path in block]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=paths, lora_dropout=0.0)
    peft = get_peft_model(model, config).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in factors(peft).items():
        if ".lora_A." in name:
            drawn = torch.rand(parameter.shape, generator=generator) * 2 - 1
            parameter.data.copy_(drawn / math.sqrt(parameter.shape[1]))
    return peft


def factors(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the adapter, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if ".lora_" in name}

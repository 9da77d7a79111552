"""NeuralDB: a gated table of keys and residuals beside one feed-forward layer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from benchmarks.baselines.encoding import encode
from benchmarks.baselines.options import settings
from benchmarks.baselines.sites import inputs, outputs, passes_on, pick
from benchmarks.baselines.values import Owners, ValueSettings, learn_offsets
from benchmarks.baselines.weights import Batches, load_tensors, packed, save_tensors
from benchmarks.folder import write_atomically
from benchmarks.records import Record
from benchmarks.session import Silenced, no_grad_host

PROMPTS = "prompts.json"


@dataclass(frozen=True)
class NeuralDbSettings(ValueSettings):
    """Settings of the table; how residuals are learned is in `ValueSettings`.

    Attributes:
        gate: cosine of a token's key with the nearest one from which on its residual is added; 0.65 in the paper.
        layer: number of the block; None for the one at `depth`, a share of all blocks.
        depth: see `layer`.
        batch: edits that are learned together.
    """

    gate: float = 0.65
    layer: int | None = None
    depth: float = 0.5
    batch: int = 32


class NeuralDb(Silenced, Batches):
    """NeuralDB (arXiv 2507.18028): keys are a layer's inputs at the subjects' last tokens, residuals are learned.

    At every token the residual of the key with the greatest cosine is added to what the layer puts out, if the cosine
    passes the gate. The paper spreads residuals over several layers; here one has them, for a norm may stand behind it.
    """

    name = "neuraldb"

    def __init__(self, model: Any, tokenizer: Any, options: Mapping[str, Any], seed: int) -> None:
        super().__init__(model, tokenizer, options, seed)
        self.settings = s = settings(self.name, NeuralDbSettings(), options)
        (self.site,) = pick(self.name, model, [] if s.layer is None else [s.layer], s.depth)
        self.together = s.batch
        self.prompts: list[str] = []
        out, width = self.site.matrix().shape
        self.keys, self.residuals = (torch.zeros(0, size, device=model.device) for size in (width, out))
        self.site.module.register_forward_hook(self._add)

    def _add(self, module: nn.Module, given: tuple[Tensor, ...], said: Tensor) -> Tensor:
        if self.silent or not self.prompts:
            return said
        cosines, rows = (normalize(given[0].float(), dim=-1) @ self.keys.T).max(-1)
        return torch.where((cosines >= self.settings.gate)[..., None], said + self.residuals[rows].to(said.dtype), said)

    def learn(self, records: Sequence[Record]) -> None:
        rows = [encode(self.tokenizer, r.prompt, r.target, r.subject) for r in records]
        batch = self.batch(rows)
        with self.off(), no_grad_host(self.model):
            measured = self.site.block if passes_on(self.model, self.site, batch.asked()) else self.site.module
            now = batch.at_subjects(outputs(self.model, [measured], batch.asked())[0])
            keys = batch.at_subjects(inputs(self.model, [self.site.module], batch.asked())[0])
            owners = Owners(torch.arange(len(rows), device=self.model.device), len(rows))
            residuals = learn_offsets(self.model, self.site, batch, owners, now, self.settings)
        gone = {record.prompt for record in records}
        kept = [number for number, prompt in enumerate(self.prompts) if prompt not in gone]
        self.prompts = [self.prompts[number] for number in kept] + [record.prompt for record in records]
        self.keys = torch.cat([self.keys[kept], normalize(keys, dim=-1)])
        self.residuals = torch.cat([self.residuals[kept], residuals])

    def _tensors(self) -> dict[str, Tensor]:
        return {"keys": self.keys, "residuals": self.residuals}

    def save(self, folder: Path) -> None:
        save_tensors(self._tensors(), folder)
        write_atomically(folder / PROMPTS, json.dumps(self.prompts, ensure_ascii=False))

    def restore(self, folder: Path) -> None:
        tensors = load_tensors(folder, self.model.device)
        self.keys, self.residuals = tensors["keys"], tensors["residuals"]
        self.prompts = json.loads((folder / PROMPTS).read_text(encoding="utf-8"))

    def bytes(self) -> int:
        return len(packed(self._tensors()))

"""UltraEdit (arXiv 2505.14679): a closed form without learned values, subjects or kept edits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.baselines.corpus import corpus, text_batches
from benchmarks.baselines.encoding import Batch
from benchmarks.baselines.options import settings
from benchmarks.baselines.sites import Site, hooked, inputs, outputs, pick
from benchmarks.baselines.solver import Running, solve
from benchmarks.baselines.weights import WeightEdits
from benchmarks.records import Record

TEXTS = 64  # neutral texts that the units are taken from


@dataclass(frozen=True)
class UltraEditSettings:
    """Settings of UltraEdit.

    Attributes:
        rate: η, in units of the sites' root mean square output over that of their input's length times the square
            root of its width. The paper's values, around 1e-6, belong to its hosts.
        ridge: weight of the identity, in units of the mean square of the sites' input; 1 absolutely in the paper.
        batch: edits that are solved for together.
        layers: numbers of the blocks; none for `span` blocks, the highest of them at `depth`, a share of all.
        depth, span: see `layers`.
        corpus: neutral texts, from which the units are taken; see `corpus`.
    """

    rate: float = 1.0
    ridge: float = 1.0
    batch: int = 32
    layers: tuple[int, ...] = ()
    depth: float = 1.0
    span: int = 1
    corpus: Any = None


class UltraEdit(WeightEdits):
    """One gradient of a batch, normalised over all batches so far, made into a change of weights by ridge regression.

    At the places that predict the target's tokens, h are a site's inputs and g the loss's gradients by its outputs.
    From the paper: (h, g) are normalised with the mean and deviation of everything seen so far, this batch included,
    nothing is trained, and no subject or earlier edit is needed. From the published code of RLEdit, which shares its
    form: with ĥ, ĝ normalised, the outputs are to move by v = -η (h · ĥ) ĝ, and the weight changes by the ridge
    solution of H X = V. Of a single place nothing has varied, so that the very first edit, given alone and
    answered in one token, does nothing.
    """

    name = "ultraedit"

    def __init__(self, model: Any, tokenizer: Any, options: Mapping[str, Any], seed: int) -> None:
        self.settings = s = settings(self.name, UltraEditSettings(), options)
        super().__init__(pick(self.name, model, s.layers, s.depth, s.span), model, tokenizer, options, seed)
        self.together = s.batch
        widths = {site.path: sum(self.matrices[site.path].shape) for site in self.sites}
        self.seen = {path: Running(width, model.device) for path, width in widths.items()}

    def prepare(self) -> None:
        """Take the units of rate and ridge from neutral text."""
        modules = [site.module for site in self.sites]
        texts = corpus(self.model, self.tokenizer, self.settings.corpus, self.seed, count=TEXTS)[:TEXTS]
        (batch,) = text_batches(self.tokenizer, texts, self.model.device, size=TEXTS)
        given, said = (
            torch.stack([seen[batch["attention_mask"].bool()].square().mean() for seen in seen_at]).mean().item()
            for seen_at in (inputs(self.model, modules, batch), outputs(self.model, modules, batch))
        )
        self.ridge = self.settings.ridge * given
        self.rate = self.settings.rate * (said / given) ** 0.5 / self.matrices[self.sites[0].path].shape[1]

    def learn(self, records: Sequence[Record]) -> None:
        gradients = self._gradients(self.batch(self.rows(records)))
        for site, (keys, slopes) in zip(self.sites, gradients, strict=True):
            self._change(site, keys, slopes)

    def _change(self, site: Site, keys: Tensor, gradients: Tensor) -> None:
        """Change a site by keys `[M, D_in]` and gradients `[M, D_out]`."""
        both = torch.cat([keys, gradients], 1)
        self.seen[site.path].update(both)
        normal, slopes = self.seen[site.path].normalise(both).split([keys.shape[1], gradients.shape[1]], 1)
        moves = -self.rate * (keys * normal).sum(1, keepdim=True) * slopes
        ridge = self.ridge * torch.eye(keys.shape[1], device=keys.device)
        self.put(site, self.matrices[site.path] + solve(keys.T, moves.T, ridge))

    def _gradients(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Of each site, inputs and gradients by outputs at the places that predict targets, float32."""
        kept: list[tuple[Tensor, Tensor]] = []

        def keep(module: nn.Module, given: tuple[Tensor, ...], said: Tensor) -> Tensor:
            said = said.detach().requires_grad_() if not said.requires_grad else said
            kept.append((given[0].detach(), said))
            return said

        with hooked([site.module.register_forward_hook(keep) for site in self.sites]):
            loss = batch.losses(batch.logits(self.model)).sum()
        slopes = torch.autograd.grad(loss, [said for _, said in kept])
        places = (batch.rows, batch.columns)
        return [(given[places].float(), slope[places].float()) for (given, _), slope in zip(kept, slopes, strict=True)]

    def state(self) -> dict[str, Tensor]:
        return {f"{path}:{name}": t for path, seen in self.seen.items() for name, t in seen.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        for path, seen in self.seen.items():
            seen.load_state({name: state[f"{path}:{name}"] for name in seen.state()})

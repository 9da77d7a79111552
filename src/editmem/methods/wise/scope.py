"""Which side a prompt belongs to: the size of what each side adds at it (WISE, equation 3)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from editmem.hosts.forward import Call, Mode
from editmem.routing.tophash import pool
from editmem.state import Stored

ROUTINGS = ("calibrated", "paper", "easyedit")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "relu": nn.functional.relu,
}


class Scope(Stored):
    """Scores of prompts under side weights, and the side that they are for.

    Args:
        routing: "calibrated": `|x ΔWᵀ| / |x|` at the prompt's last token; "paper": `|x ΔWᵀ|`, the mean over the
            prompt's tokens (equation 3); "easyedit": as "paper", of what the activation makes of both outputs.
        activation: of the host's feed-forward block, for "easyedit".

    Attributes:
        scales: float32 `[S]`, each side's unit: what its own edits score.
        base: float32, the threshold before there are edits.
        threshold: float32, from how many units on a side acts.
    """

    scales: Tensor
    base: Tensor
    threshold: Tensor

    def __init__(self, routing: str, activation: str) -> None:
        super().__init__()
        self.routing, self.activation = routing, ACTIVATIONS[activation]
        self.register_buffer("scales", torch.ones(0, dtype=torch.float32), persistent=False)
        self.register_buffer("base", torch.tensor(torch.nan, dtype=torch.float32))
        self.register_buffer("threshold", torch.tensor(torch.nan, dtype=torch.float32), persistent=False)

    @property
    def pooling(self) -> str:
        return "last" if self.routing == "calibrated" else "mean"

    def of_tokens(self, x: Tensor, out: Tensor, sides: Tensor) -> Tensor:
        """Scores float32 `[..., S]` of tokens, from `x` `[..., D]`, `out` `[..., d]` and sides `[S, d, D]`."""
        count, width, _ = sides.shape
        x = x.to(sides.dtype)
        added = nn.functional.linear(x, sides.flatten(0, 1)).unflatten(-1, (count, width)).float()
        if self.routing == "easyedit":
            base = out.float()[..., None, :]
            added = self.activation(base + added) - self.activation(base)
        scores = added.norm(dim=-1)
        return scores / x.float().norm(dim=-1, keepdim=True) if self.routing == "calibrated" else scores

    def of_prompts(
        self, x: Tensor, out: Tensor, call: Call, sides: Tensor, carry: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Scores in units `[B, Q, S]` of the prompts that may end in this forward, and whether they do `[B, Q]`."""
        if self.pooling == "last":
            ends, _ = pool(x, call, "last", carry)
            outs, found = pool(out, call, "last", carry)
            return self.of_tokens(ends, outs, sides) / self.scales, found
        if carry.get("sum", self.scales).shape[-1] != len(sides):  # the sides have changed since
            carry.pop("sum", None)
        scores, found = pool(self.of_tokens(x, out, sides), call, "mean", carry)
        return scores / self.scales, found

    def observe(self, x: Tensor, out: Tensor, call: Call, sides: Tensor, carry: dict[str, Tensor]) -> None:
        """Take note of tokens that end no prompt."""
        if self.pooling == "mean":
            self.of_prompts(x, out, call, sides, carry)

    def decide(self, x: Tensor, out: Tensor, call: Call, sides: Tensor, carry: dict[str, Tensor]) -> Tensor:
        """The side of each prompt that ends in this forward, -1 for none: as `Router.decide`."""
        scores, found = self.of_prompts(x, out, call, sides, carry)
        best = scores.max(-1)
        side = torch.where(found & (best.values >= self.threshold), best.indices, -1)
        return side.squeeze(1) if call.mode is Mode.BOUNDARY else side

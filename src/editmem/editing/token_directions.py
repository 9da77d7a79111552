"""Where edits on the last block begin: offsets with which the host's head says their tokens.

Above the last block are norms and the head alone. A token's logit grows there along its own row of the head, and so do
the logits of all tokens whose rows lie near. It alone stands out along (WᵀW / V + λI)⁻¹ w, the ridge regression of
"this token and no other" on the rows: W `[V, d]` is the head, w the token's row. An offset along it that outweighs what
the block itself adds is said whatever the text before it: of most edits nothing is left to learn, and a token has the
same offset in all of them. (Along its own row alone the token with which Qwen ends a turn is not said.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from editmem.editing.runner import Runner
from editmem.hosts.structure import Host
from editmem.memory import Prompts
from editmem.routing.router import at_prompt_ends

ROWS = 16_384
"""Of the head, evenly spread, that stand for all."""
RIDGE = 3.0
"""λ, in mean squares of the head's weights."""
LENGTH = 8.0
"""Of the offsets, in root mean squares of what the block adds."""


@dataclass(frozen=True)
class TokenDirections:
    """Of one host; they depend on no edit.

    Attributes:
        host: the host, whose head's weights are W.
        inverse: float32 `[d, d]`, (WᵀW / V + λI)⁻¹.
        size: root mean square of an offset.
    """

    host: Host
    inverse: Tensor
    size: float

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> Tensor | None:
        """Offsets for token ids (int64 `[...]`), float32 `[..., d]`; None if the head has other weights by now."""
        if (weight := _weights_of_head(self.host)) is None or weight.shape[1] != len(self.inverse):
            return None
        distinct, which = tokens.unique(return_inverse=True)
        # One by one: the last bits of a product depend on how many rows it has, and a token has one offset only.
        rows = [row @ self.inverse for row in weight[distinct.to(weight.device)].to(self.inverse)]
        offsets = torch.stack([self.size * row / row.square().mean().sqrt().clamp(min=1e-12) for row in rows])
        return offsets[which.to(offsets.device)]


@torch.no_grad()
def token_directions(runner: Runner, read: Callable[[], Prompts], ridge: float = RIDGE) -> TokenDirections | None:
    """Those of a host.

    Args:
        runner: for the site.
        read: has the site see some texts.
        ridge: as `RIDGE`.

    Returns:
        None where the site is not in the last block, or the head has no plain weights.
    """
    weight = _weights_of_head(runner.host)
    if not runner.on_last_block or weight is None or weight.shape[1] != runner.site.out_features:
        return None
    rows = weight[:: max(1, len(weight) // ROWS)].float()
    moment = rows.T @ rows / len(rows)
    moment += ridge * moment.diagonal().mean() * torch.eye(len(moment), device=moment.device)
    seen = read()
    ends = at_prompt_ends(seen.out, seen.call)[0].float()
    return TokenDirections(runner.host, torch.linalg.inv(moment), LENGTH * float(ends.square().mean().sqrt()))


def _weights_of_head(host: Host) -> Tensor | None:
    """`[V, d]`; None where they are quantised, sharded or elsewhere."""
    weight: Any = getattr(host.model.get_output_embeddings(), "weight", None)
    plain = type(weight) in (Tensor, nn.Parameter) and weight.is_floating_point() and not weight.is_meta
    return weight if plain and weight.ndim == 2 else None

"""Where edits on the last block begin: offsets with which the host's head says their tokens.

Above the last block are norms and the head alone, so that a token's logit grows along the token's own row of the head.
An offset along it that outweighs what the block itself adds is said whatever the text before it: of most edits nothing
is left to learn, and a token has the same offset in all of them.
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

LENGTH = 4.0
"""Of the offsets, in root mean squares of what the block adds."""


@dataclass(frozen=True)
class TokenDirections:
    """Of one host; they depend on no edit.

    Attributes:
        host: the host.
        width: d, of its last block.
        size: root mean square of an offset.
    """

    host: Host
    width: int
    size: float

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> Tensor | None:
        """Offsets for token ids (int64 `[...]`), float32 `[..., d]`; None where the head has no plain weights `[V, d]`,
        as it may be quantised, sharded or elsewhere."""
        weight: Any = getattr(self.host.model.get_output_embeddings(), "weight", None)
        plain = type(weight) in (Tensor, nn.Parameter) and weight.is_floating_point() and not weight.is_meta
        if not plain or weight.shape[1:] != (self.width,):
            return None
        distinct, which = tokens.unique(return_inverse=True)
        # One by one: the last bits of a sum may depend on how many rows there are, and a token has one offset only.
        rows = [row / row.square().mean().sqrt().clamp(min=1e-12) for row in weight[distinct.to(weight.device)].float()]
        return self.size * torch.stack(rows)[which.to(weight.device)]


def token_directions(runner: Runner, read: Callable[[], Prompts]) -> TokenDirections | None:
    """Those of a host.

    Args:
        runner: for the site.
        read: has the site see some texts.

    Returns:
        None where the site is not in the last block.
    """
    if not runner.on_last_block:
        return None
    seen = read()
    ends = at_prompt_ends(seen.out, seen.call)[0].float()
    return TokenDirections(runner.host, runner.site.out_features, LENGTH * float(ends.square().mean().sqrt()))

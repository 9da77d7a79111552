"""From the states of an item's tokens to a few embeddings (CoMEM's Q-Former, a Perceiver resampler)."""

import torch
from einops import rearrange
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """Queries attend to the states and to themselves.

    Args:
        width: of queries and states.
        heads: how many, each `width / heads` wide.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_states, self.norm_queries = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, states: Tensor, real: Tensor, queries: Tensor) -> Tensor:
        """`[B, K, w]`; `states` `[B, T, w]` where `real` (bool `[B, T]`), `queries` `[B, K, w]`."""
        states, queries = self.norm_states(states), self.norm_queries(queries)
        own = torch.ones_like(queries[..., 0], dtype=torch.bool)
        q = self.to_q(queries)
        k, v = self.to_kv(torch.cat([states, queries], 1)).chunk(2, -1)
        q, k, v = (rearrange(part, "b n (h d) -> b h n d", h=self.heads) for part in (q, k, v))
        seen = torch.cat([real, own], 1)[:, None, None]
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class Resampler(nn.Module):
    """One pair of attention and feed-forward, applied `depth` times (CoMEM, Eq. 1: the layers share their weights).

    There are no positions inside of it: what the order of the tokens says is in their states.

    Args:
        states: width of the states that are read.
        width: of the embeddings, d.
        queries: k.
        depth: how often the pair is applied (paper's code: 8).
        heads: of attention (paper's code: 16).
        generator: of the weights before training.
    """

    def __init__(
        self,
        states: int,
        width: int,
        queries: int = 8,
        depth: int = 8,
        heads: int = 8,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.depth = depth
        self.queries = nn.Parameter(torch.randn(queries, width, generator=generator) / width**0.5)
        self.proj_in, self.proj_out = nn.Linear(states, width), nn.Linear(width, width)
        self.attention = CrossAttention(width, heads)
        up, down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.feed_forward = nn.Sequential(nn.LayerNorm(width), up, nn.GELU(), down)
        self.norm_out = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, states: Tensor, real: Tensor) -> Tensor:
        """Float32 `[B, k, d]`, of `states` `[B, T, w]` where `real` (bool `[B, T]`)."""
        states = self.proj_in(states.float())
        queries = self.queries.expand(states.shape[0], -1, -1)
        for _ in range(self.depth):
            queries = queries + self.attention(states, real, queries)
            queries = queries + self.feed_forward(queries)
        return self.norm_out(self.proj_out(queries))

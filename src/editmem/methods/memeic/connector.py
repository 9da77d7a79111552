"""The knowledge connector (MemEIC, section 3.4): where a picture's edit and a fact's meet, attention is adapted."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from editmem.hosts.structure import SiteInfo
from editmem.state import Stored


class ConnectorMap(nn.Module):
    """A and B of one projection, in float32.

    Args:
        site: the projection.
        rank: r.
        generator: draws A; B begins as zero.
    """

    def __init__(self, site: SiteInfo, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.path = site.path
        bound = 1 / math.sqrt(site.in_features)
        down = torch.empty((rank, site.in_features), dtype=torch.float32).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down, requires_grad=False)
        up = torch.zeros((site.out_features, rank), dtype=torch.float32)
        self.up = nn.Parameter(up, requires_grad=False)


class KnowledgeConnector(Stored):
    """One low-rank adapter on each query and key projection, on for rows in which both modalities are in play.

    Args:
        sites: the projections.
        rank, alpha: of the adapters.
        seed: of A before training; B begins as zero, and the connector with it as nothing.

    Attributes:
        trained: whether it has been, or is being, trained; it does nothing otherwise.
    """

    def __init__(self, sites: Sequence[SiteInfo], rank: int, alpha: float, seed: int) -> None:
        super().__init__()
        self.scale, self.trained = alpha / rank, False
        generator = torch.Generator().manual_seed(seed)
        self.maps = [ConnectorMap(site, rank, generator) for site in sites]
        self.held = nn.ModuleList(self.maps)

    @property
    def paths(self) -> list[str]:
        return [weights.path for weights in self.maps]

    @property
    def down(self) -> list[nn.Parameter]:
        return [weights.down for weights in self.maps]

    @property
    def up(self) -> list[nn.Parameter]:
        return [weights.up for weights in self.maps]

    def add(self, number: int, x: Tensor, out: Tensor, both: Tensor) -> Tensor:
        """`out` `[B, T, d]` of projection `number`, adapted in the rows `both` (bool `[B]`); others bit for bit."""
        inner = nn.functional.linear(x.to(self.down[number].dtype), self.down[number])
        added = self.scale * nn.functional.linear(inner, self.up[number])
        return torch.where(both.to(out.device)[:, None, None], out + added.to(out.dtype), out)

    def restored(self) -> None:
        self.trained = any(bool(up.any()) for up in self.up)

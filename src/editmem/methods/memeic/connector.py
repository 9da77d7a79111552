"""The knowledge connector (MemEIC, section 3.4): where a picture's edit and a fact's meet, attention is adapted."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from editmem.hosts.structure import SiteInfo


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


class KnowledgeConnector(nn.Module):
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

    def state(self) -> dict[str, Tensor]:
        return {f"{i}.{name}": weight.detach() for i, name, weight in self._named()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`.

        Raises:
            ValueError: naming the first tensor that is missing or of another shape.
        """
        for i, name, weight in self._named():
            given = tensors.get(f"{i}.{name}")
            if given is None or given.shape != weight.shape:
                found = "missing" if given is None else f"{tuple(given.shape)}, expected {tuple(weight.shape)}"
                raise ValueError(f"connector: {i}.{name} is {found}")
        for i, name, weight in self._named():
            weight.data.copy_(tensors[f"{i}.{name}"])
        self.trained = any(bool(up.any()) for up in self.up)

    def _named(self) -> Iterator[tuple[int, str, nn.Parameter]]:
        for i, (down, up) in enumerate(zip(self.down, self.up, strict=True)):
            yield i, "down", down
            yield i, "up", up

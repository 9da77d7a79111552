"""Low-rank adapters on the feed-forward projections (MemEIC's Mem-I), chosen for each row of a batch."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from einops import einsum
from torch import Tensor, nn

from editmem.hosts.forward import Call
from editmem.hosts.structure import SiteInfo
from editmem.memory import Draft
from editmem.state import Stored
from editmem.storage.table import Rows


class LowRank(nn.Module):
    """Adapters `W x + (alpha / rank) B A x` at one linear map (LoRA, arXiv 2106.09685), a row for each.

    Args:
        site: the linear map.
        rank: r.
        dtype: of the host; adapters are kept in it.
    """

    def __init__(self, site: SiteInfo, rank: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.path = site.path
        self.down = Rows((rank, site.in_features), dtype)  # A
        self.up = Rows((site.out_features, rank), dtype)  # B

    @property
    def weights(self) -> tuple[Tensor, Tensor]:
        return self.down.data, self.up.data


def add(x: Tensor, out: Tensor, weights: tuple[Tensor, Tensor], rows: Tensor, active: Tensor, scale: float) -> Tensor:
    """`out` `[B, T, d]` plus what an adapter for each row of the batch makes of `x` `[B, T, D]`.

    Args:
        x, out: what went into the linear map, and what came out.
        weights: A `[N, r, D]` and B `[N, d, r]`.
        rows: int64 `[B]`, the adapter of each row.
        active: bool `[B, T]`; elsewhere the output is `out` bit for bit.
        scale: alpha / rank.
    """
    rows, active = rows.to(out.device), active.to(out.device)  # worked out at the memory's first site
    down, up = (weight[rows] for weight in weights)
    inner = einsum(x.to(down.dtype), down, "batch time d, batch rank d -> batch time rank")
    added = scale * einsum(inner, up, "batch time rank, batch d rank -> batch time d")
    return torch.where(active[..., None], out + added.to(out.dtype), out)


class AdapterDraft(Draft):
    """Adapters while they are learned, in float32: one for each edit, or one for all of them.

    Args:
        begun: A and B of each site, by path, `[E, r, D]` and `[E, d, r]`.
        owner: int64 `[B]`, which adapter each row of the batch belongs to.
        lengths: int64 `[B]`, tokens of each row's target.
        scale: alpha / rank.
        rate: Adam's step size.
        dtype: in which adapters are kept.
        decay: AdamW's weight decay.
    """

    def __init__(
        self,
        begun: Mapping[str, tuple[Tensor, Tensor]],
        owner: Tensor,
        lengths: Tensor,
        scale: float,
        rate: float,
        dtype: torch.dtype,
        decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.paths = list(begun)
        self.down = nn.ParameterList([nn.Parameter(down.float().clone()) for down, _ in begun.values()])
        self.up = nn.ParameterList([nn.Parameter(up.float().clone()) for _, up in begun.values()])
        self.owner, self.lengths, self.scale, self.rate = owner, lengths, scale, rate
        self.dtype, self.decay, self.count = dtype, decay, 0
        self.state = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters()]

    def places(self, path: str) -> Mapping[str, Callable[[Tensor, Tensor, Call], Tensor]]:
        return {path: self._at(number) for number, path in enumerate(self.paths)}

    def _at(self, number: int) -> Callable[[Tensor, Tensor, Call], Tensor]:
        def run(x: Tensor, out: Tensor, call: Call) -> Tensor:
            assert call.step is not None
            active = (call.step >= 0) & (call.step < self.lengths.to(call.step.device)[:, None])
            weights = self._stored(self.down[number]), self._stored(self.up[number])
            return add(x, out, weights, self.owner, active, self.scale)

        return run

    def _stored(self, weight: Tensor) -> Tensor:
        """Rounded as it will be kept, so that what is learned is what will be read."""
        return weight if self.dtype == torch.float32 else weight + (weight.to(self.dtype).float() - weight).detach()

    def forward(self, x: Tensor, out: Tensor, call: Call) -> Tensor:
        return out

    def step(self, loss: Tensor, unfinished: Tensor) -> None:
        parameters = list(self.parameters())
        self.count += 1
        with torch.no_grad():
            # A block of cross-attention does not run where there is no picture.
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
            for p, gradient, (mean, square) in zip(parameters, gradients, self.state, strict=True):
                mean.lerp_(gradient, 0.1)
                square.lerp_(gradient.square(), 0.001)
                size = (square / (1 - 0.999**self.count)).sqrt() + 1e-8
                update = self.rate * (mean / (1 - 0.9**self.count) / size + self.decay * p)
                moving = unfinished if len(p) == len(unfinished) else unfinished.any().expand(len(p))
                p.sub_(torch.where(moving.to(p.device)[:, None, None], update, 0))

    def learned(self) -> list[tuple[Tensor, Tensor]]:
        """A and B of each site."""
        return [(down.detach(), up.detach()) for down, up in zip(self.down, self.up, strict=True)]


class DualAdapters(Stored):
    """Adapters for visual and for textual edits at several linear maps.

    Per edit, each edit has a row of its own; shared, row 0 is the visual and row 1 the textual adapter of all.

    Args:
        sites: the linear maps.
        rank, alpha: of each adapter.
        per_edit: whether each edit has its own.
        dtype: of the host.
        seed: of A before learning; B begins as zero.
    """

    def __init__(
        self, sites: Sequence[SiteInfo], rank: int, alpha: float, per_edit: bool, dtype: torch.dtype, seed: int
    ) -> None:
        super().__init__()
        self.rank, self.scale, self.per_edit, self.seed = rank, alpha / rank, per_edit, seed
        self.maps = [LowRank(site, rank, dtype) for site in sites]
        self.held = nn.ModuleList(self.maps)
        if not per_edit:
            self.restart()

    def _fresh(self, count: int) -> list[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed)
        fresh = []
        for low_rank in self.maps:
            down, up = low_rank.weights
            bound = 1 / math.sqrt(down.shape[2])
            first = (
                torch.empty(down.shape[1:], dtype=torch.float32)
                .uniform_(-bound, bound, generator=generator)
                .to(down.device)
            )
            fresh.append((first.expand(count, -1, -1).clone(), up.new_zeros((count, *up.shape[1:]), dtype=torch.float)))
        return fresh

    def restart(self) -> None:
        """The shared adapters as they are before any edit."""
        for low_rank, (down, up) in zip(self.maps, self._fresh(2), strict=True):
            low_rank.down.replace(down)
            low_rank.up.replace(up)

    def draft(self, visual: bool, owner: Tensor, lengths: Tensor, rate: float, decay: float = 0.0) -> AdapterDraft:
        """Begin to write edits of one modality; `owner` and `lengths` are of the rows that they are learned from."""
        count = int(owner.max()) + 1
        paths = [low_rank.path for low_rank in self.maps]
        if self.per_edit:
            begun = self._fresh(count)
        else:
            row = slice(0, 1) if visual else slice(1, 2)
            begun = [(down[row], up[row]) for down, up in (low_rank.weights for low_rank in self.maps)]
            owner = torch.zeros_like(owner)
        dtype = self.maps[0].down.data.dtype
        return AdapterDraft(dict(zip(paths, begun, strict=True)), owner, lengths, self.scale, rate, dtype, decay)

    def commit(self, draft: AdapterDraft, visual: bool) -> None:
        for low_rank, (down, up) in zip(self.maps, draft.learned(), strict=True):
            if self.per_edit:
                low_rank.down.append(down)
                low_rank.up.append(up)
            else:
                row = 0 if visual else 1
                low_rank.down.put(row, down[0])
                low_rank.up.put(row, up[0])

    def hosted(self) -> list[Tensor]:
        """As `Memory.hosted`."""
        return [weight for low_rank in self.maps for weight in low_rank.weights]

    def keep(self, rows: Tensor) -> None:
        """Drop all edits but these."""
        if not self.per_edit:
            self.restart()
            return
        for low_rank in self.maps:
            low_rank.down.keep(rows)
            low_rank.up.keep(rows)

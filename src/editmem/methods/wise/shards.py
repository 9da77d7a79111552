"""The shards of a side memory: what each adds to the weight, inside a random mask of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from editmem.kernels.reference import pack_bytes, unpack_bytes
from editmem.methods.wise.merging import merge
from editmem.state import Stored


class Shards(Stored):
    """Deltas `[S, d, D]` of the site's weight, each inside a Bernoulli(density) mask (WISE, section 2.3.2).

    Args:
        in_features: D.
        out_features: d.
        density: share of the weight in each mask.
        seed: of the masks.
        dtype: of the deltas.
    """

    deltas: Tensor
    bits: Tensor

    def __init__(self, in_features: int, out_features: int, density: float, seed: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.shape, self.density, self.seed = (out_features, in_features), density, seed
        self.register_buffer("deltas", torch.zeros((0, *self.shape), dtype=dtype))
        self.register_buffer("bits", torch.zeros((0, -(-out_features * in_features // 8)), dtype=torch.uint8))

    def __len__(self) -> int:
        return self.deltas.shape[0]

    def resize(self, count: int) -> None:
        """Have this many shards; new ones are empty."""
        while len(self.bits) < count:
            self.bits = torch.cat([self.bits, pack_bytes(self.draw(len(self.bits)).flatten())[None]])
        self.bits = self.bits[:count]
        grown = self.deltas.new_zeros((count, *self.shape))
        grown[: len(self.deltas)] = self.deltas[:count]
        self.deltas = grown

    def draw(self, number: int) -> Tensor:
        """The mask of a shard, bool `[d, D]`, the same whenever it is drawn."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        mask = torch.rand(self.shape, generator=generator, dtype=torch.float32) < self.density
        return mask.to(self.bits.device)

    def mask(self, number: int) -> Tensor:
        """Bool `[d, D]`."""
        return unpack_bytes(self.bits[number], self.shape[0] * self.shape[1]).view(self.shape)

    def merged(self, group: Sequence[int], method: str, keep: float) -> Tensor:
        """One delta `[d, D]` of several shards."""
        if len(group) == 1:
            return self.deltas[group[0]]
        return merge(self.deltas[list(group)], method, keep, self.seed)

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        """The masks, packed, and the values inside them."""
        inside = [self.deltas[number][self.mask(number)] for number in range(len(self))]
        destination[f"{prefix}bits"] = self.bits.contiguous()
        destination[f"{prefix}values"] = torch.cat(inside) if inside else self.deltas.new_zeros(0)

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        bits, values = state_dict[f"{prefix}bits"].to(self.bits), state_dict[f"{prefix}values"].to(self.deltas)
        if bits.shape[1] != self.bits.shape[1]:
            raise ValueError(f"masks have {bits.shape[1]} bytes, expected {self.bits.shape[1]}")
        self.bits = bits
        masks = [self.mask(number) for number in range(len(bits))]
        if sum(int(mask.sum()) for mask in masks) != values.shape[0]:
            raise ValueError("the number of values is not that of the places in the masks")
        self.deltas = values.new_zeros((len(bits), *self.shape))
        start = 0
        for delta, mask in zip(self.deltas, masks, strict=True):
            count = int(mask.sum())
            delta[mask] = values[start : start + count]
            start += count

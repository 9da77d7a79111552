"""The sides that a prompt is routed to: shards, or several shards made one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from editmem.methods.wise.shards import Shards
from editmem.routing.answers import Action


class Sides(nn.Module):
    """Deltas `[S, d, D]` made of shards. It follows from them, and is made anew where they have changed.

    Args:
        inference: "merge" makes one side of all full shards; "retrieve" one of each `group` of them.
        group: full shards in a side ("retrieve").
        merging, keep: as of `merging.merge`.

    Attributes:
        groups: the shards of each side.
    """

    deltas: Tensor

    def __init__(self, inference: str, group: int, merging: str, keep: float) -> None:
        super().__init__()
        self.inference, self.group, self.merging, self.keep = inference, group, merging, keep
        self.groups: list[tuple[int, ...]] = []
        self.register_buffer("deltas", torch.zeros((0, 0, 0), dtype=torch.float32), persistent=False)

    def __len__(self) -> int:
        return len(self.groups)

    def follow(self, shards: Shards, full: Sequence[bool], changed: set[int]) -> None:
        """Be made of these shards, of which some have changed since the last time."""
        made = {
            group: delta
            for group, delta in zip(self.groups, self.deltas, strict=True)
            if not changed.intersection(group)
        }
        self.groups = self._grouped(full)
        deltas = [made[g] if g in made else shards.merged(g, self.merging, self.keep) for g in self.groups]
        self.deltas = torch.stack(deltas) if deltas else shards.deltas[:0]

    def _grouped(self, full: Sequence[bool]) -> list[tuple[int, ...]]:
        closed = [number for number, is_full in enumerate(full) if is_full]
        alone: list[tuple[int, ...]] = [(number,) for number, is_full in enumerate(full) if not is_full]
        if self.inference == "merge":
            return [tuple(closed), *alone] if closed else alone
        whole = len(closed) - len(closed) % self.group
        groups = [tuple(closed[start : start + self.group]) for start in range(0, whole, self.group)]
        return sorted([*groups, *((number,) for number in closed[whole:]), *alone])

    def add(self, x: Tensor, out: Tensor, action: Action) -> Tensor:
        """`out` `[B, T, d]` plus what the acting sides add; other tokens are `out` bit for bit."""
        for side in self._present(action):
            here = (action.active & (action.edit == side))[..., None]
            out = torch.where(
                here, out + nn.functional.linear(x.to(self.deltas.dtype), self.deltas[side]).to(out.dtype), out
            )
        return out

    def _present(self, action: Action) -> Sequence[int]:
        """The sides that may act: looked up where that costs nothing, all where a GPU would have to be waited for."""
        if action.active.device.type == "cpu" and not torch.compiler.is_compiling():
            return action.edit[action.active].unique().tolist()
        return range(len(self))

    def of_shards(self) -> Tensor:
        """The side of each shard, int64."""
        sides = {shard: side for side, group in enumerate(self.groups) for shard in group}
        return torch.tensor([sides[shard] for shard in range(len(sides))], dtype=torch.long, device=self.deltas.device)

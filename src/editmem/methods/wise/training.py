"""How shards come to hold edits: what every way of learning them shares."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from editmem.edits.edit import EncodedEdit
from editmem.memory import Calibration, Draft, Prompts
from editmem.methods.wise.shards import Shards
from editmem.state import Stored
from editmem.storage.table import Rows
from editmem.storage.targets import Targets, spans, starts


class Training(Stored, ABC):
    """Edits in shards.

    Args:
        shards: the weights; their bias-free inputs and outputs are the site's.
        size: edits in a shard.

    Attributes:
        targets: of the edits.
        shard: int64 `[N]`, the shard of each edit.
        keys: `[P, D]`, what goes into the site at the tokens where edits act, those of one edit after the other.
    """

    def __init__(self, shards: Shards, size: int) -> None:
        super().__init__()
        self.shards, self.size = shards, size
        self.targets = Targets()
        self.shard = Rows((), torch.long)
        self.keys = Rows((shards.shape[1],), shards.deltas.dtype)
        self._pinned: int | None = None

    @abstractmethod
    def calibrate(self, host: Calibration) -> None:
        """Take from the host what learning needs to know of it."""

    @abstractmethod
    def draft(self, edits: Sequence[EncodedEdit], prompts: Prompts, owner: Tensor) -> Draft:
        """As `Memory.draft`."""

    @abstractmethod
    def commit(self, edits: Sequence[EncodedEdit], draft: Draft, prompts: Prompts) -> set[int]:
        """Keep drafted edits; returns the shards that changed."""

    @abstractmethod
    def keep(self, rows: Tensor) -> set[int]:
        """Drop all edits but those in `rows` (int64, ascending); returns the shards that changed."""

    def restored(self) -> None:
        rows, tokens = len(self.targets), int(self.targets.lengths.used.sum())
        if len(self.shard) != rows or len(self.keys) != tokens:
            raise ValueError("shard and keys do not have the rows that the targets' lengths say")
        if rows and len(self.shards) != int(self.shard.used.max()) + 1:
            raise ValueError("the masks are not those of the shards that edits are in")

    def hosted(self) -> list[Tensor]:
        """As `Memory.hosted`."""
        return [self.shards.deltas, self.keys.data]

    def ends(self) -> Tensor:
        """What goes into the site at the end of each edit's prompt, `[N, D]`."""
        return self.keys.used[starts(self.targets.lengths.used)]

    def rows_of(self, shard: int) -> Tensor:
        """The edits of a shard, int64."""
        return (self.shard.used == shard).nonzero().squeeze(1)

    def full(self) -> list[bool]:
        """Of each shard whether there is no room in it."""
        return (torch.bincount(self.shard.used, minlength=len(self.shards)) >= self.size).tolist()

    def places(self, count: int) -> list[int]:
        """The shards that this many new edits go to: the first that have room."""
        if self._pinned is not None:
            return [self._pinned] * count
        held = torch.bincount(self.shard.used, minlength=1).tolist()
        held += [0] * (1 + count // self.size)
        free = [number for number, used in enumerate(held) for _ in range(self.size - used)]
        return free[:count]

    @contextmanager
    def rewriting(self, rows: Sequence[int]) -> Iterator[None]:
        """Inside, new edits go where these are."""
        self._pinned = int(self.shard.used[rows[0]])
        try:
            yield
        finally:
            self._pinned = None

    def _append(self, edits: Sequence[EncodedEdit], prompts: Prompts, shards: Sequence[int]) -> None:
        self.keys.append(prompts.x[: len(edits)][acting(edits, prompts)])
        self.targets.append(edits)
        self.shard.append(torch.tensor(shards))
        self.shards.resize(int(self.shard.used.max()) + 1)

    def _left_by(self, rows: Tensor) -> tuple[Tensor, set[int]]:
        """Whether each edit is none of `rows`, bool `[N]`, and the shards of those that are not."""
        gone = torch.ones(len(self.shard), dtype=torch.bool, device=rows.device)
        gone[rows] = False
        return gone, set(self.shard.used[gone].tolist())

    def _keep(self, rows: Tensor) -> None:
        self.keys.keep(spans(self.targets.lengths.used, rows))
        self.targets.keep(rows)
        self.shard.keep(rows)
        self.shards.resize(int(self.shard.used.max()) + 1 if len(self.shard) else 0)


def acting(edits: Sequence[EncodedEdit], prompts: Prompts) -> Tensor:
    """Bool `[E, T]`: the tokens of the edits' plain prompts where they act, one for each token of their targets."""
    step = prompts.call.step
    assert step is not None
    step = step[: len(edits)]
    lengths = torch.tensor([len(edit.target) for edit in edits], device=step.device)
    return (step >= 0) & (step < lengths[:, None])

"""Growing tables of per-edit state."""

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from editmem.state import Stored
from editmem.storage.snapshots import Restorable, Restore, attributes


class Rows(Stored, Restorable):
    """A tensor that grows and shrinks by rows.

    Its capacity doubles, so that its shape changes rarely and compiled forwards stay valid. Rows beyond
    `count` hold `fill`, which every memory must read as "no edit".

    Args:
        shape: shape of one row.
        dtype: of the tensor.
        fill: what unused rows hold.
        saved: whether it is part of the `state_dict`; not if it follows from other tables.
    """

    data: Tensor

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, fill: float = 0, saved: bool = True) -> None:
        super().__init__()
        self.register_buffer("data", torch.full((64, *shape), fill, dtype=dtype), persistent=saved)
        self.fill = fill
        self.count = 0
        self._lent = False  # whether what a `state_dict` holds may be this very memory
        self._logs: WeakSet[_Log] = WeakSet()

    def __len__(self) -> int:
        return self.count

    @property
    def used(self) -> Tensor:
        """The rows in use, `[count, ...]`."""
        return self.data[: self.count]

    def _empty(self, capacity: int, shape: torch.Size) -> Tensor:
        return torch.full((capacity, *shape), self.fill, dtype=self.data.dtype, device=self.data.device)

    def append(self, rows: Tensor) -> None:
        """Add rows `[n, ...]` at the end."""
        needed = self.count + rows.shape[0]
        if needed > self.data.shape[0]:
            grown = self._empty(1 << (needed - 1).bit_length(), self.data.shape[1:])
            grown[: self.count] = self.used
            self.data = grown
        self.data[self.count : needed] = rows.to(self.data)
        self.count = needed

    def put(self, rows: int | Sequence[int] | Tensor, values: Tensor | float) -> None:
        """Hold other values in some rows; a snapshot brings the present ones back, and a `state_dict` keeps them."""
        if self._lent:
            self.data, self._lent = self.data.clone(), False
        for log in self._logs:
            log.entries.append((self.data, rows, self.data[rows].clone()))
        self.data[rows] = values

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these (int64, ascending)."""
        self.replace(self.used[rows.to(self.data.device)])

    def replace(self, rows: Tensor) -> None:
        """Hold exactly these rows; their shape may differ from before."""
        capacity = max(64, 1 << max(0, rows.shape[0] - 1).bit_length())
        self.data = self._empty(capacity, rows.shape[1:])
        self.count = 0
        self.append(rows)

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        if "data" not in self._non_persistent_buffers_set:
            destination[f"{prefix}data"] = self.used.detach().contiguous()
            self._lent = True

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        if (rows := state_dict.get(f"{prefix}data")) is not None:
            self.replace(rows)

    def snapshot(self) -> Restore:
        restore, log = attributes(self), _Log()
        self._logs.add(log)

        def undo() -> None:
            restore()
            for data, rows, values in reversed(log.entries):
                data[rows] = values
            log.entries.clear()
            self.data[self.count :] = self.fill

        return undo


class _Log:
    """What stood in rows that have been put others into, for as long as a snapshot is held."""

    def __init__(self) -> None:
        self.entries: list[tuple[Tensor, int | Sequence[int] | Tensor, Tensor]] = []

"""The embeddings of items, outside of the model."""

import torch
from torch import Tensor

from editmem.state import Stored
from editmem.storage.table import Rows

KEPT_IN = torch.float16


class MemoryBank(Stored):
    """k embeddings for each item; the renderings of an edit, which are rows of the memory, share one item.

    Args:
        queries: k.
        width: d.
    """

    def __init__(self, queries: int, width: int) -> None:
        super().__init__()
        self.queries = queries
        self.vectors = Rows((queries, width), KEPT_IN)
        self.entries = Rows((), torch.long)
        self.wholes = Rows((), torch.bool)

    def __len__(self) -> int:
        return len(self.entries)

    def append(self, vectors: Tensor, entries: Tensor, wholes: Tensor) -> None:
        """Add items.

        Args:
            vectors: `[n, k, d]`.
            entries: int64 `[rows]`, which of these each new row is.
            wholes: bool `[rows]`, whether it is for all that is asked about what it is about, not for one question.
        """
        self.entries.append(entries.to(self.entries.data.device) + len(self.vectors))
        self.vectors.append(vectors)
        self.wholes.append(wholes)

    def at(self, rows: Tensor, numbers: Tensor) -> Tensor:
        """Embeddings `[..., d]` of rows of the memory (int64), by their number among the item's own (int64)."""
        return self.vectors.data[self.entries.data[rows], numbers]

    def of(self, row: int) -> Tensor:
        """Embeddings `[k, d]` of a row of the memory."""
        return self.vectors.data[self.entries.data[row]]

    def whole(self, rows: Tensor) -> Tensor:
        """Whether rows (int64, -1 for none) are for all that is asked about what they are about."""
        return self.wholes.data[rows.clamp(min=0)] & (rows >= 0)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these (int64, ascending)."""
        used, entries = self.entries.used[rows.to(self.entries.data.device)].unique(return_inverse=True)
        self.vectors.keep(used)
        self.entries.replace(entries)
        self.wholes.keep(rows)

"""The answers that a memory holds, as token ids."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import NO_TOKEN
from editmem.state import Stored
from editmem.storage.table import Rows

BURIED = -3
"""In the place of the tokens of a target that is nobody's; no text has it."""


class Targets(Stored):
    """One row for each edit: its target's tokens, padded with `NO_TOKEN` to a common window, and their number."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = Rows((1,), torch.long, NO_TOKEN)
        self.lengths = Rows((), torch.long)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def window(self) -> int:
        """The longest target, rounded up."""
        return self.tokens.data.shape[1]

    def begun(self, tail: Tensor) -> Tensor:
        """Which endings of texts are beginnings of targets that go on.

        Args:
            tail: int64 `[B, n]`, the last tokens of each text.

        Returns:
            bool `[B, n]`, at `c - 1` whether the last `c` tokens are.
        """
        count = tail.shape[1]
        found = torch.zeros_like(tail, dtype=torch.bool)
        if not len(self) or not count:
            return found
        tokens, lengths = self.tokens.used, self.lengths.used
        tail = tail.to(tokens.device)
        first = torch.isin(tail, tokens[:, 0])
        for row, column in first.nonzero().tolist():
            said = tail[row, column:]
            if (c := count - column) < self.window:
                same = (tokens[:, :c] == said).all(1) & (lengths > c)
                found[row, c - 1] = bool(same.any())
        return found

    def count(self, edits: Sequence[EncodedEdit]) -> Tensor:
        """Tokens of each edit's target, int64 `[E]`."""
        return torch.tensor([len(edit.target) for edit in edits], device=self.lengths.data.device)

    def append(self, edits: Sequence[EncodedEdit]) -> None:
        lengths = self.count(edits)
        window = max(self.window, window_for(int(lengths.max())))
        if window != self.window:
            self.tokens.replace(nn.functional.pad(self.tokens.used, (0, window - self.window), value=NO_TOKEN))
        padded = [list(edit.target) + [NO_TOKEN] * (window - len(edit.target)) for edit in edits]
        self.tokens.append(torch.tensor(padded))
        self.lengths.append(lengths)

    def bury(self, rows: Sequence[int]) -> None:
        """No text is the beginning of these targets any more; their lengths stay, for they say where others begin."""
        self.tokens.put(rows, BURIED)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these (int64, ascending)."""
        self.lengths.keep(rows)
        self.tokens.keep(rows)
        self._fit()

    def _fit(self) -> None:
        window = window_for(int(self.lengths.used.max())) if len(self) else 1
        self.tokens.replace(self.tokens.used[:, :window])

    def restored(self) -> None:
        if len(self.tokens) != len(self.lengths):
            raise ValueError("targets and lengths differ in their number of edits")
        self._fit()


def window_for(length: int) -> int:
    """The power of two at or above a target's length, so that windows change rarely."""
    return 1 << max(0, length - 1).bit_length()


def starts(lengths: Tensor) -> Tensor:
    """Where each edit's tokens begin, if those of all edits stand one after the other."""
    return lengths.cumsum(0) - lengths


def spans(lengths: Tensor, rows: Tensor) -> Tensor:
    """The places of the tokens of some edits (int64, ascending), if those of all edits stand one after the other."""
    kept = lengths[rows]
    shift = torch.repeat_interleave(starts(lengths)[rows] - starts(kept), kept)
    return shift + torch.arange(shift.shape[0], device=rows.device)


def rows_but(rows: Sequence[int], count: int, device: torch.device) -> Tensor:
    """All of `count` rows but these, int64, ascending."""
    dropped = torch.zeros(count, dtype=torch.bool, device=device)
    dropped[list(rows)] = True
    return (~dropped).nonzero().squeeze(1)

"""What memories have decided on the rows of a text: the one thing that outlives a forward pass.

The same object is in the `Call` of a forward, in the running `generate`, and in the note on a KV cache, so that a row's
decision goes where its text goes.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

KEPT = "kept"
"""In a memory's part: how many columns are left of the text, int64 `[B]`, where it was cut since."""


class Decisions(dict[str, dict[str, Tensor]]):
    """By memory (`Memory.key`) the tensors that it carries from one forward to the next, first dimension B."""

    def copied(self) -> "Decisions":
        """One that can be changed without changing this one; tensors are shared."""
        return Decisions({key: dict(state) for key, state in self.items()})

    def joined(self, others: Mapping[str, Mapping[str, Tensor]]) -> "Decisions":
        """With what others have decided, which replaces what is here under the same names."""
        joined = self.copied()
        for key, state in others.items():
            joined[key] = {**joined.get(key, {}), **state}
        return joined

    def rows(self, change: Callable[[Tensor], Tensor]) -> "Decisions":
        """With every tensor changed as the rows of the text are."""
        return Decisions({key: {name: change(part) for name, part in state.items()} for key, state in self.items()})

    def cut(self, length: int) -> "Decisions":
        """On what is left of the text when it is cut to `length` columns; see `KEPT`."""

        def cut(state: dict[str, Tensor]) -> dict[str, Tensor]:
            some = next(iter(state.values()))
            now = torch.full((some.shape[0],), length, dtype=torch.long, device=some.device)
            return {**state, KEPT: torch.minimum(state.get(KEPT, now), now)}

        return Decisions({key: cut(state) for key, state in self.items() if state})

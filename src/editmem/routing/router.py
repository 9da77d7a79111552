"""Routers: which edit, if any, a prompt asks for. The replaceable part of the retrieval memories."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence

from torch import Tensor

from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import Call, Mode
from editmem.memory import Calibration, Kept, Match, Prompts
from editmem.state import Stored
from editmem.text.vocabulary import Vocabulary


class Router(Stored, ABC):
    """Finds the edit that a prompt asks for.

    Keys are rows, in step with the rows of the memory that the router belongs to.

    Attributes:
        keys: names of its tables that have a row for each edit.
    """

    keys: tuple[str, ...]
    by_words = False
    """As of `Memory`."""

    @abstractmethod
    def calibrate(self, host: Calibration) -> None:
        """Fix background and threshold from prompts that are not edits."""

    @property
    def calibrated_by(self) -> Collection[str]:
        """As of `Memory`."""
        return {"prompts"}

    @property
    def edit_masks(self) -> Tensor | None:
        """Packed masks of the edits, int32 `[N, words]`; None where the router has none."""
        return None

    def prompt_masks(self, prompts: Prompts, count: int) -> Tensor | None:
        """Those of the first `count` prompts, int32 `[count, words]`."""
        return None

    def read_back(self, text_of: Callable[[Sequence[int]], str]) -> None:
        """As `Memory.read_back`."""

    def hear(self, vocabulary: Vocabulary) -> None:
        """As `Memory.hear`."""

    @abstractmethod
    def append(self, prompts: Prompts, edits: Sequence[EncodedEdit]) -> list[Kept]:
        """Add keys for edits, whose prompts are the first of `prompts`.

        Returns:
            What is known of each.
        """

    @property
    def rekeys(self) -> bool:
        """As of `Memory`."""
        return False

    def rekey(self, rows: Sequence[int], edits: Sequence[EncodedEdit]) -> None:
        """As `Memory.rekey`."""
        raise NotImplementedError

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Drop all keys but those in `rows` (int64, ascending)."""

    def bury(self, rows: Sequence[int]) -> bool:
        """As `Memory.bury`."""
        return False

    @abstractmethod
    def decide(self, x: Tensor, call: Call, carry: dict[str, Tensor]) -> Tensor:
        """The edit for each prompt that ends in this forward, -1 for none.

        Returns:
            int64 `[B]` in `Mode.BOUNDARY`, `[B, T]` in `Mode.SCAN`.
        """

    def observe(self, x: Tensor, call: Call, carry: dict[str, Tensor]) -> None:
        """Take note of tokens that end no prompt, where later decisions depend on them."""

    @abstractmethod
    def rank(self, prompts: Prompts, top: int) -> list[list[Match]]:
        """For each prompt the `top` nearest edits, best first."""

    def near(self, prompts: Prompts, top: int) -> list[list[Match]]:
        """As `rank`, but only edits that may act have to be among them."""
        return self.rank(prompts, top)

    def alike(self, prompts: Prompts, rows: Sequence[int]) -> list[tuple[Match, ...]]:
        """For each of the first prompts, which are the edits `rows`: the other edits that they would match too."""
        ranked = self.near(prompts, 4)[: len(rows)]
        return [
            tuple(match for match in matches if match.row != row and match.score >= match.threshold)
            for row, matches in zip(rows, ranked, strict=True)
        ]


def prompt_ends(call: Call) -> tuple[Tensor, Tensor]:
    """The column of each row's last prompt token, int64 `[B]`, and whether it is in this forward, bool `[B]`."""
    assert call.step is not None
    is_end = (call.step == 0) & call.real
    return is_end.long().argmax(1), is_end.any(1)


def at_prompt_ends(x: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """Of `[B, T, D]` what belongs to prompts that end in this forward.

    Returns:
        features `[B, Q, D]` and bool `[B, Q]`, where Q is 1 if boundaries are known and T if not.
    """
    if call.mode is not Mode.BOUNDARY:
        return x, call.real
    column, found = prompt_ends(call)
    return x.gather(1, column[:, None, None].expand(-1, 1, x.shape[-1])), found[:, None]

"""Put a module back into the state that it was in, bit for bit, without having copied its tensors.

This holds because state changes in three ways only: an attribute gets another value (a new tensor, a new list); `Rows`
and indexes get entries at the end, which are taken away again; `Rows` get another value in a row and note the former.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import nn

Restore = Callable[[], None]


class Restorable(ABC):
    """What changes in place, and knows how to change back."""

    @abstractmethod
    def snapshot(self) -> Restore:
        """What puts it back into its present state."""


def snapshot(module: nn.Module) -> Restore:
    """What puts a module and all modules in it back into their present state."""
    restores = [restore for part in module.modules() for restore in _of_part(part)]

    def restore() -> None:
        for each in restores:
            each()

    return restore


def _of_part(part: nn.Module) -> list[Restore]:
    if isinstance(part, Restorable):
        return [part.snapshot()]
    inside = [value.snapshot() for value in vars(part).values() if isinstance(value, Restorable)]
    return [attributes(part), *inside]


def attributes(part: Any) -> Restore:
    """What gives an object its present attributes back; lists, dicts and sets with what is in them now."""
    now = {name: copy.copy(v) if isinstance(v, (list, dict, set)) else v for name, v in vars(part).items()}

    def restore() -> None:
        vars(part).clear()
        vars(part).update(now)

    return restore

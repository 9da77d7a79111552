"""How modules keep their state: by `state_dict`, with tensors whose shapes change, and what follows from them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

Patterns = Sequence[tuple[str, str]]
FORMER: Patterns = (
    (r"\.data$", ""), (r"^targets\.tokens$", "targets"), (r"^targets\.lengths$", "lengths"), (r"\.held\.", "."),
    (r"\.turns\.turn$", ".turn"),
)  # fmt: skip
"""From the name of a tensor to the one that it had in format 1: patterns, and what stood in their place."""


class Stored(nn.Module):
    """A module whose buffers are whatever was saved, of any shape."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        for name, buffer in list(self._buffers.items()):
            if buffer is not None and (found := state_dict.get(prefix + name)) is not None:
                self._buffers[name] = found.to(buffer)

    def restored(self) -> None:
        """Work out what follows from the state that was just loaded, that of the modules in it first.

        Raises:
            ValueError: if tensors do not belong together.
        """


def restore(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load a `state_dict` of a module, and work out what follows from it.

    Raises:
        ValueError: if a tensor is missing, unknown, or does not belong to the others.
    """
    check_tensors(tensors, module.state_dict())
    module.load_state_dict(tensors, strict=False)
    for part in reversed(list(module.modules())):
        if isinstance(part, Stored):
            part.restored()


def renamed(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], own: Patterns = ()) -> Mapping[str, Tensor]:
    """Tensors of format 1 under the names of today; others as they are.

    Args:
        tensors: as they were saved.
        expected: the state of an empty memory.
        own: patterns as `FORMER`, of the memory itself.
    """
    left, found = dict(tensors), {}
    for name in expected:
        former = name
        for pattern, instead in (*own, *FORMER):
            former = re.sub(pattern, instead, former)
        # The router on names kept it beside the words.
        for each in (name, former, former.replace(".turn", ".words.turn")):
            if name not in found and each in left:
                found[name] = left.pop(each)
    return found | left


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not those of an (empty) memory but for their number of rows.

    Floats may be wider or narrower, as they are where the same host was loaded in another dtype.

    Raises:
        ValueError: naming the first tensor that is missing, unknown, or of another dtype or number of axes.
    """
    for name in sorted(set(found) ^ set(expected)):
        raise ValueError(f"tensor {name!r} is {'missing' if name in expected else 'unknown'}")
    for name, tensor in expected.items():
        floats = found[name].is_floating_point() and tensor.is_floating_point()
        if found[name].ndim != tensor.ndim or not (floats or found[name].dtype == tensor.dtype):
            raise ValueError(
                f"tensor {name!r} is {found[name].dtype} with {found[name].ndim} axes, "
                f"expected {tensor.dtype} with {tensor.ndim}"
            )

"""Find weights, and where they run, also where accelerate keeps them elsewhere between forwards."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from editmem.errors import HostError


def stored(model: nn.Module, path: str) -> Tensor:
    """A parameter or buffer of a model, by its name there; from the CPU or the disk where it is offloaded.

    Raises:
        HostError: if it has no values.
    """
    module, _, name = path.rpartition(".")
    tensor = getattr(model.get_submodule(module), name)
    if not tensor.is_meta:
        return tensor
    for hook, rest in _hooks(model, path):
        if hook.offload and hook.weights_map is not None:
            return hook.weights_map[rest]
    raise HostError(f"the weight {path} is on the meta device, without values; load the model's weights first")


def runs_on(model: nn.Module, path: str) -> torch.device:
    """The device on which a parameter or buffer of a model takes part in a forward."""
    module, _, name = path.rpartition(".")
    tensor = getattr(model.get_submodule(module), name)
    if not tensor.is_meta:
        return tensor.device
    devices = (hook.execution_device for hook, _ in _hooks(model, path) if hook.execution_device is not None)
    return torch.device(next(devices, tensor.device))


def _hooks(model: nn.Module, path: str) -> Iterator[tuple[Any, str]]:
    """Accelerate's hooks that move the weight at `path`, the nearest first, and how each calls it."""
    names = path.split(".")
    for depth in range(len(names) - 1, -1, -1):
        hook = getattr(model.get_submodule(".".join(names[:depth])), "_hf_hook", None)
        for each in getattr(hook, "hooks", [hook]):
            if hasattr(each, "weights_map"):
                yield each, ".".join(names[depth:])

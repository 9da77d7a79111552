"""Two devices on a CPU: tensors that say where they are, and refuse to meet those that are elsewhere.

`lazy` is a type of device that PyTorch knows and that nothing here implements: no operation runs on it unseen.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

ONE, TWO = torch.device("lazy:0"), torch.device("lazy:1")
CPU = torch.device("cpu")
aten = torch.ops.aten
MOVES = (aten._to_copy.default, aten.copy_.default)
INDEXES = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


class Placed(torch.Tensor):
    """A tensor on the CPU that says it is on another device."""

    @staticmethod
    def __new__(cls, held, device):
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = torch.Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=device, **layout)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def __getitem__(self, index):
        return super().__getitem__(_listed(index))

    def __setitem__(self, index, value):
        value = value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=self.dtype)
        super().__setitem__(_listed(index), value)

    def tolist(self):
        return self.held.tolist()

    def __repr__(self):
        return f"Placed({self.held!r}, {self.device})"


class Devices(TorchDispatchMode):
    """Inside, tensors can be made on the two devices."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def _listed(index):
    """Lists as tensors, which PyTorch would make of them unseen."""
    if isinstance(index, tuple):
        return tuple(map(_listed, index))
    return torch.tensor(index, dtype=torch.long) if isinstance(index, list) else index


def tensor(values, *, device=None, made=torch.tensor, **options):
    """In place of `torch.tensor`, which makes its result unseen by modes."""
    return made(values, **options).to(device) if device is not None else made(values, **options)


def run(func, args, kwargs):
    """An operation, where its tensors are.

    Raises:
        RuntimeError: if they are on several devices, as on real ones; numbers and indices may be on the CPU.
    """
    flat, spec = tree_flatten((args, kwargs))
    tensors = [value for value in flat if isinstance(value, torch.Tensor)]
    free = {CPU} if func in INDEXES else set()
    devices = {t.device for t in tensors if t.ndim or t.device != CPU}
    if len(devices) > 1 and func not in MOVES and (len(devices - free) > 1 or args[0].device == CPU):
        raise RuntimeError(f"{func}: tensors are on {', '.join(sorted(map(str, devices)))}")
    here = args[0].device if func in (*MOVES, *INDEXES) else next(iter(devices), CPU)
    if (wanted := kwargs.get("device")) is not None:
        here = torch.device(wanted)
        flat = [CPU if value is wanted else value for value in flat]
    held = [value.held if isinstance(value, Placed) else value for value in flat]
    args, kwargs = tree_unflatten(held, spec)
    out = func(*args, **kwargs)
    if here == CPU:
        return out
    given = {id(h): value for h, value in zip(held, flat, strict=True) if isinstance(value, Placed)}
    return tree_map_only(
        torch.Tensor, lambda tensor: given[id(tensor)] if id(tensor) in given else Placed(tensor, here), out
    )

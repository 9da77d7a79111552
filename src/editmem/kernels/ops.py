"""The operations as torch operators: dispatched by device, traceable by `torch.compile`, differentiable where trained.

On a GPU the Triton kernels run; where they do not apply (another dtype, no Triton) the reference does.
"""

import functools
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from editmem.kernels import cpu, reference
from editmem.kernels.reference import unpack, words

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@functools.cache
def _triton() -> ModuleType | None:
    try:
        from editmem.kernels import triton_kernels as gpu
    except ImportError:
        return None
    return gpu


def _kernels(tensor: Tensor, *floats: Tensor) -> Any:
    """Where an operation on these tensors is implemented: the CPU route, the Triton kernels, or None."""
    if tensor.device.type == "cpu":
        return cpu
    if tensor.device.type == "cuda" and all(t.dtype in _FLOATS for t in floats):
        return _triton()
    return None


@custom_op("editmem::tophash", mutates_args=())
def tophash(features: Tensor, background: Tensor, permutation: Tensor, k: int) -> Tensor:
    """TopHash masks; see `reference.tophash`."""
    features, background = features.detach(), background.detach()
    kernels = _kernels(features, features) or reference
    return kernels.tophash(features, background, permutation, k)


@tophash.register_fake
def _(features: Tensor, background: Tensor, permutation: Tensor, k: int) -> Tensor:
    return features.new_empty((*features.shape[:-1], words(features.shape[-1])), dtype=torch.int32)


@custom_op("editmem::match", mutates_args=())
def match(queries: Tensor, masks: Tensor, alive: Tensor, bits: int, top: int) -> tuple[Tensor, Tensor]:
    """The nearest masks; see `reference.match`."""
    kernels = _kernels(queries) or reference
    return kernels.match(queries.contiguous(), masks.contiguous(), alive.contiguous(), bits, top)


@match.register_fake
def _(queries: Tensor, masks: Tensor, alive: Tensor, bits: int, top: int) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], top)
    return queries.new_empty(shape, dtype=torch.int32), queries.new_empty(shape, dtype=torch.int64)


@custom_op("editmem::factored_delta_", mutates_args=("out",))
def factored_delta_(out: Tensor, offsets: Tensor, index: Tensor, active: Tensor) -> None:
    """`out` plus offsets at active tokens, in place; see `reference.factored_delta`."""
    kernels = _kernels(out, out, offsets) if out.is_contiguous() and offsets.is_contiguous() else None
    if kernels is None:
        out.copy_(reference.factored_delta(out, offsets, index, active))
    else:
        kernels.factored_delta_(out, offsets, index, active)


@factored_delta_.register_fake
def _(out: Tensor, offsets: Tensor, index: Tensor, active: Tensor) -> None: ...


@custom_op("editmem::shared_delta_", mutates_args=("out",))
def shared_delta_(out: Tensor, x: Tensor, weight: Tensor, masks: Tensor, edit: Tensor, active: Tensor) -> None:
    """`out` plus masked columns times masked input at active tokens, in place; see `reference.shared_delta`."""
    kernels = _kernels(out, out, x, weight) if out.is_contiguous() and masks.is_contiguous() else None
    if kernels is None:
        out.copy_(reference.shared_delta(out, x, weight, masks, edit, active))
    else:
        kernels.shared_delta_(out, x, weight, masks, edit, active)


@shared_delta_.register_fake
def _(out: Tensor, x: Tensor, weight: Tensor, masks: Tensor, edit: Tensor, active: Tensor) -> None: ...


@custom_op("editmem::factored_delta", mutates_args=())
def factored_delta(out: Tensor, offsets: Tensor, index: Tensor, active: Tensor) -> Tensor:
    """`reference.factored_delta`, differentiable in `out` and `offsets`."""
    result = out.clone(memory_format=torch.contiguous_format)
    factored_delta_(result, offsets, index, active)
    return result


@factored_delta.register_fake
def _(out: Tensor, offsets: Tensor, index: Tensor, active: Tensor) -> Tensor:
    return torch.empty_like(out, memory_format=torch.contiguous_format)


def _keep_factored(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _, offsets, index, active = inputs
    ctx.save_for_backward(index, active)
    ctx.shape, ctx.dtype = offsets.shape, offsets.dtype


def _factored_backward(ctx: Any, grad: Tensor) -> tuple:
    index, active = ctx.saved_tensors
    offsets = None
    if ctx.needs_input_grad[1]:
        moved = torch.where(active[..., None], grad, 0).flatten(0, -2).to(ctx.dtype)
        row = torch.where(active, index, 0).flatten()
        offsets = torch.zeros(ctx.shape, dtype=ctx.dtype, device=grad.device).index_add(0, row, moved)
    return grad, offsets, None, None


factored_delta.register_autograd(_factored_backward, setup_context=_keep_factored)


@custom_op("editmem::shared_delta", mutates_args=())
def shared_delta(out: Tensor, x: Tensor, weight: Tensor, masks: Tensor, edit: Tensor, active: Tensor) -> Tensor:
    """`reference.shared_delta`, differentiable in `out`, `x` and `weight`."""
    result = out.clone(memory_format=torch.contiguous_format)
    shared_delta_(result, x, weight, masks, edit, active)
    return result


@shared_delta.register_fake
def _(out: Tensor, x: Tensor, weight: Tensor, masks: Tensor, edit: Tensor, active: Tensor) -> Tensor:
    return torch.empty_like(out, memory_format=torch.contiguous_format)


def _keep_shared(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _, *kept = inputs
    ctx.save_for_backward(*kept)


def _shared_backward(ctx: Any, grad: Tensor) -> tuple:
    x, weight, masks, edit, active = ctx.saved_tensors
    chosen = unpack(masks[edit], x.shape[-1]) & active[..., None]
    by_input = by_weight = None
    if ctx.needs_input_grad[1]:
        by_input = torch.where(chosen, grad.to(weight.dtype) @ weight, 0).to(x.dtype)
    if ctx.needs_input_grad[2]:
        moved = torch.where(chosen, x, 0).to(weight.dtype).flatten(0, -2)
        by_weight = grad.to(weight.dtype).flatten(0, -2).T @ moved
    return grad, by_input, by_weight, None, None, None


shared_delta.register_autograd(_shared_backward, setup_context=_keep_shared)

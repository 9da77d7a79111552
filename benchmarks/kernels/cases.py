"""Inputs of the kernel benchmarks, and what they are compared with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from editmem import kernels
from editmem.kernels import reference

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPES = {"llama-3-8b": (14336, 4096, 4096), "qwen3-0.6b": (3072, 1024, 768), "embedded": (512, 192, 128)}
"""D, d and k."""
BATCHES = (1, 8, 64)
EDITS = (0, 1_000, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class Case:
    """One operation on one set of inputs.

    Attributes:
        run: the operator.
        reference: the plain PyTorch definition.
        arguments: of both.
        bytes: that have to be read and written at least.
    """

    run: Callable
    reference: Callable
    arguments: tuple[Any, ...]
    bytes: int


def random_masks(rows: int, width: int, k: int) -> Tensor:
    """Packed masks with k bits each: a few different ones, repeated, for making a million takes long."""
    some = min(rows, 1000)
    top = torch.rand((some, width), device=DEVICE).topk(k, 1).indices if some else torch.zeros((0, k)).long()
    bits = torch.zeros((some, width), dtype=torch.bool, device=DEVICE).scatter(1, top.to(DEVICE), True)
    packed = kernels.pack(bits)
    return packed.repeat(-(-rows // max(1, some)), 1)[:rows].contiguous() if rows else packed


def tophash(shape: str, batch: int) -> Case:
    width, _, k = SHAPES[shape]
    features = torch.randn((batch, width), device=DEVICE)
    permutation = torch.randperm(width, device=DEVICE)
    arguments = (features, torch.zeros(width, device=DEVICE), permutation, k)
    return Case(kernels.tophash, reference.tophash, arguments, features.nbytes + 8 * width + batch * width // 8)


def match(shape: str, batch: int, edits: int) -> Case:
    width, _, k = SHAPES[shape]
    masks, queries = random_masks(edits, width, k), random_masks(batch, width, k)
    alive = torch.ones(edits, dtype=torch.bool, device=DEVICE)
    return Case(kernels.match, reference.match, (queries, masks, alive, k, 1), masks.nbytes + queries.nbytes)


def delta(kind: str, shape: str, batch: int, matched: bool = True, edits: int = 64) -> Case:
    """A decoding step: one token a row."""
    width, out_width, k = SHAPES[shape]
    dtype = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
    out = torch.randn((batch, 1, out_width), device=DEVICE, dtype=dtype)
    edit = torch.randint(0, edits, (batch, 1), device=DEVICE)
    active = torch.full((batch, 1), matched, device=DEVICE)
    moved = 2 * out.nbytes
    if kind == "factored":
        offsets = torch.randn((edits, out_width), device=DEVICE, dtype=dtype)
        return Case(
            kernels.factored_delta_, reference.factored_delta, (out, offsets, edit, active),
            (moved + out.nbytes) * matched + batch,
        )  # fmt: skip
    x = torch.randn((batch, 1, width), device=DEVICE, dtype=dtype)
    weight = torch.randn((out_width, width), device=DEVICE)
    masks = random_masks(edits, width, k)
    columns = k * out_width * weight.element_size() * min(batch, -(-width // k))
    return Case(
        kernels.shared_delta_, reference.shared_delta, (out, x, weight, masks, edit, active),
        (moved + columns + batch * k * x.element_size()) * matched + batch,
    )  # fmt: skip


def copy_bandwidth() -> float:
    """Bytes per second that a copy reads and writes on this machine."""
    from torch.utils.benchmark import Timer

    source = torch.empty(1 << (30 if DEVICE.type == "cuda" else 27), dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    seconds = Timer("target.copy_(source)", globals={"target": target, "source": source}).blocked_autorange().median
    return 2 * source.nbytes / seconds

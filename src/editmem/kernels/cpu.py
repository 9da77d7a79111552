"""The operations on a CPU: NumPy's and FAISS's vector instructions where they are faster than the reference."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from editmem.kernels.reference import NONE, ranked, unpack, words

CHUNK = 1 << 18  # words whose bits are counted at once, to stay in the cache


def tophash(features: Tensor, background: Tensor, permutation: Tensor, k: int) -> Tensor:
    """As the reference has it."""
    width = features.shape[-1]
    magnitude = (features.float() - background).abs().reshape(-1, width)
    least = magnitude.topk(k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    chosen = magnitude >= least
    if int(chosen.sum()) != k * len(chosen):  # several of the least magnitude: the first of them
        tied = magnitude == least
        room = k - (magnitude > least).sum(-1, keepdim=True)
        chosen = (magnitude > least) | (tied & (tied.cumsum(-1) <= room))
    mask = torch.empty_like(chosen)
    mask[:, permutation] = chosen
    return _pack(mask).view(*features.shape[:-1], words(width))


def _pack(bits: Tensor) -> Tensor:
    """As the reference has it, for two axes."""
    packed = np.packbits(bits.numpy(), axis=-1, bitorder="little")
    packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 4)))
    return torch.from_numpy(packed.view(np.int32))


def match(queries: Tensor, masks: Tensor, alive: Tensor, bits: int, top: int) -> tuple[Tensor, Tensor]:
    """As the reference has it."""
    rows = masks.shape[0]
    counts = torch.full((queries.shape[0], max(rows, top)), NONE, dtype=torch.int32)
    if rows and queries.shape[0]:
        shared = _overlaps(_unsigned(queries), _unsigned(masks), bits)
        counts[:, :rows] = torch.where(alive, torch.from_numpy(shared), NONE)
    if top > 1:
        return ranked(counts, top)
    best = torch.from_numpy(counts.numpy().argmax(1))[:, None]  # of equal ones NumPy takes the first
    count = counts.gather(1, best)
    return count, torch.where(count >= 0, best, NONE)


def _unsigned(packed: Tensor) -> np.ndarray:
    return packed.contiguous().numpy().view(np.uint32)


def _overlaps(queries: np.ndarray, masks: np.ndarray, bits: int) -> np.ndarray:
    """Int32 `[Q, N]`: shared bits; of masks that do not have so many bits anything."""
    counts = np.empty((len(queries), len(masks)), np.int32)
    if (faiss := _faiss()) is not None:
        with _one_thread(faiss):
            arrays = (faiss.swig_ptr(array.view(np.uint8)) for array in (queries, masks))
            faiss.hammings(*arrays, len(queries), len(masks), 4 * masks.shape[1], faiss.swig_ptr(counts))
        # |a & b| = (|a| + |b| - hamming(a, b)) / 2
        return (np.bitwise_count(queries).sum(1, dtype=np.int32)[:, None] + np.int32(bits) - counts) // 2
    step = max(1, CHUNK // masks.shape[1])
    for start in range(0, len(masks), step):
        part = masks[start : start + step]
        for row, query in enumerate(queries):
            counts[row, start : start + step] = np.bitwise_count(part & query).sum(1, dtype=np.int32)
    return counts


@functools.cache
def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        return None
    return faiss


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    """FAISS brings an OpenMP pool of its own, which stalls beside torch's."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def factored_delta_(out: Tensor, offsets: Tensor, index: Tensor, active: Tensor) -> None:
    """The reference's, in place; rows that are not active are not touched."""
    at = active.flatten().nonzero().squeeze(1)
    if len(at) == 0:
        return
    flat = out.view(-1, out.shape[-1])
    wide = torch.promote_types(out.dtype, torch.float32)
    flat[at] = (flat[at].to(wide) + offsets[index.flatten()[at]].to(wide)).to(out.dtype)


def shared_delta_(out: Tensor, x: Tensor, weight: Tensor, masks: Tensor, edit: Tensor, active: Tensor) -> None:
    """The reference's, in place; rows that are not active are not touched."""
    at = active.flatten().nonzero().squeeze(1)
    if len(at) == 0:
        return
    flat = out.view(-1, out.shape[-1])
    wide = torch.promote_types(out.dtype, torch.float32)
    bits = unpack(masks[edit.flatten()[at]], x.shape[-1])
    chosen = torch.where(bits, x.reshape(-1, x.shape[-1])[at], 0).to(wide)
    flat[at] = (flat[at].to(wide) + chosen @ weight.to(wide).T).to(out.dtype)

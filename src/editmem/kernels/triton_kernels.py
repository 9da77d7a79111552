"""The operations in Triton, for CUDA and ROCm. Importing this file imports Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from editmem.kernels.reference import NONE, WORD, ranked, words

BLOCK = 2048  # elements of a feature, or of a mask, that a program looks at at once


@triton.jit
def _magnitudes(x_ptr, background_ptr, row, at, width):
    """|x - background| as integers in the same order; -1 beyond the end."""
    inside = at < width
    x = tl.load(x_ptr + row * width + at, mask=inside, other=0).to(tl.float32)
    x = tl.abs(x - tl.load(background_ptr + at, mask=inside, other=0).to(tl.float32))
    return tl.where(inside, x.to(tl.int32, bitcast=True), -1)


@triton.jit
def tophash_kernel(x_ptr, background_ptr, permutation_ptr, mask_ptr, width, k, mask_words, BLOCK: tl.constexpr):
    """One row: find the k-th largest magnitude bit by bit, then set the bits of all at or above it."""
    row = tl.program_id(0).to(tl.int64)
    least = 0
    for step in range(31):
        candidate = least | (1 << (30 - step))
        count = 0
        for start in range(0, width, BLOCK):
            size = _magnitudes(x_ptr, background_ptr, row, start + tl.arange(0, BLOCK), width)
            count += tl.sum((size >= candidate).to(tl.int32))
        least = tl.where(count >= k, candidate, least)
    above = 0
    for start in range(0, width, BLOCK):
        size = _magnitudes(x_ptr, background_ptr, row, start + tl.arange(0, BLOCK), width)
        above += tl.sum((size > least).to(tl.int32))
    ties = 0
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        size = _magnitudes(x_ptr, background_ptr, row, at, width)
        tied = (size == least).to(tl.int32)
        chosen = (size > least) | ((tied == 1) & (ties + tl.cumsum(tied, 0) <= k - above))
        ties += tl.sum(tied)
        bit = tl.load(permutation_ptr + at, mask=at < width, other=0).to(tl.int32)
        tl.atomic_or(mask_ptr + row * mask_words + bit // 32, (bit * 0 + 1) << (bit % 32), mask=chosen)


@triton.jit
def _popcount(v):
    v = v - ((v >> 1) & 0x55555555)
    v = (v & 0x33333333) + ((v >> 2) & 0x33333333)
    v = (v + (v >> 4)) & 0x0F0F0F0F
    v = v + (v >> 8)
    return (v + (v >> 16)) & 0x3F


@triton.jit
def match_kernel(
    query_ptr, mask_ptr, alive_ptr, out_ptr, queries, rows, mask_words,
    EVERY: tl.constexpr, QUERIES: tl.constexpr, ROWS: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """Overlaps of a few queries with a block of masks: all of them, or the best as (overlap, ~row) in one number."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    query = tl.program_id(1) * QUERIES + tl.arange(0, QUERIES)
    shared = tl.zeros((QUERIES, ROWS), tl.int32)
    for start in range(0, mask_words, WORDS):
        word = start + tl.arange(0, WORDS)
        mask = tl.load(
            mask_ptr + row[:, None] * mask_words + word[None, :],
            mask=(row < rows)[:, None] & (word < mask_words)[None, :], other=0,
        )  # fmt: skip
        asked = tl.load(
            query_ptr + query[:, None] * mask_words + word[None, :],
            mask=(query < queries)[:, None] & (word < mask_words)[None, :], other=0,
        )  # fmt: skip
        shared += tl.sum(_popcount(asked[:, None, :] & mask[None, :, :]), axis=2)
    alive = tl.load(alive_ptr + row, mask=row < rows, other=0) != 0
    if EVERY:
        place = query[:, None].to(tl.int64) * rows + row[None, :]
        inside = (query < queries)[:, None] & (row < rows)[None, :]
        tl.store(out_ptr + place, tl.where(alive[None, :], shared, -1), mask=inside)
    else:
        rank = (shared.to(tl.int64) << 32) | (0xFFFFFFFF - row)[None, :]
        best = tl.max(tl.where(alive[None, :], rank, -1), axis=1)
        tl.atomic_max(out_ptr + query, best, mask=query < queries)


@triton.jit
def factored_delta_kernel(out_ptr, offset_ptr, index_ptr, active_ptr, width, BLOCK: tl.constexpr):
    """One token and a block of its output."""
    token = tl.program_id(0).to(tl.int64)
    if tl.load(active_ptr + token) != 0:
        row = tl.load(index_ptr + token)
        at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        out = tl.load(out_ptr + token * width + at, mask=at < width, other=0).to(tl.float32)
        out += tl.load(offset_ptr + row * width + at, mask=at < width, other=0).to(tl.float32)
        tl.store(out_ptr + token * width + at, out.to(out_ptr.dtype.element_ty), mask=at < width)


@triton.jit
def shared_delta_kernel(
    out_ptr, x_ptr, weight_ptr, mask_ptr, edit_ptr, active_ptr, in_width, out_width, mask_words,
    IN: tl.constexpr, OUT: tl.constexpr,
):  # fmt: skip
    """One token and a block of its output: the masked columns of the weight times the masked input."""
    token = tl.program_id(0).to(tl.int64)
    if tl.load(active_ptr + token) != 0:
        edit = tl.load(edit_ptr + token)
        row = tl.program_id(1) * OUT + tl.arange(0, OUT)
        added = tl.zeros((OUT,), tl.float32)
        for start in range(0, in_width, IN):
            at = start + tl.arange(0, IN)
            bit = (tl.load(mask_ptr + edit * mask_words + at // 32, mask=at < in_width, other=0) >> (at % 32)) & 1
            x = tl.load(x_ptr + token * in_width + at, mask=bit == 1, other=0).to(tl.float32)
            weight = tl.load(
                weight_ptr + row[:, None].to(tl.int64) * in_width + at[None, :],
                mask=(row < out_width)[:, None] & (bit == 1)[None, :], other=0,
            ).to(tl.float32)  # fmt: skip
            added += tl.sum(weight * x[None, :], axis=1)
        out = tl.load(out_ptr + token * out_width + row, mask=row < out_width, other=0).to(tl.float32)
        tl.store(out_ptr + token * out_width + row, (out + added).to(out_ptr.dtype.element_ty), mask=row < out_width)


def tophash(features: Tensor, background: Tensor, permutation: Tensor, k: int) -> Tensor:
    """As the reference has it."""
    width = features.shape[-1]
    flat = features.reshape(-1, width).contiguous()
    rows = flat.shape[0]
    mask = torch.zeros((rows, words(width)), dtype=torch.int32, device=flat.device)
    if rows:
        block = min(BLOCK, triton.next_power_of_2(width))
        tophash_kernel[(rows,)](flat, background, permutation, mask, width, k, mask.shape[1], BLOCK=block)
    return mask.view(*features.shape[:-1], mask.shape[1])


def match(queries: Tensor, masks: Tensor, alive: Tensor, bits: int, top: int) -> tuple[Tensor, Tensor]:
    """As the reference has it. The best alone takes one pass; more of them, all overlaps and a sort."""
    count, rows = queries.shape[0], masks.shape[0]
    every = top > 1
    shape, kind = ((count, max(rows, top)), torch.int32) if every else ((count,), torch.int64)
    found = torch.full(shape, NONE, dtype=kind, device=queries.device)
    if count and rows:
        counted = torch.empty((count, rows), dtype=torch.int32, device=queries.device) if every else found
        together = min(4, triton.next_power_of_2(count))
        grid = (triton.cdiv(rows, 32), triton.cdiv(count, together))
        match_kernel[grid](
            queries, masks, alive, counted, count, rows, masks.shape[1],
            EVERY=every, QUERIES=together, ROWS=32, WORDS=WORD,
        )  # fmt: skip
        if every:
            found[:, :rows] = counted
    if every:
        return ranked(found, top)
    row = torch.where(found >= 0, 0xFFFFFFFF - (found & 0xFFFFFFFF), NONE)
    return (found >> 32).to(torch.int32)[:, None], row[:, None]


def factored_delta_(out: Tensor, offsets: Tensor, index: Tensor, active: Tensor) -> None:
    """The reference's, in place; rows that are not active move no memory."""
    width = out.shape[-1]
    tokens = active.numel()
    if tokens and width:
        block = min(1024, triton.next_power_of_2(width))
        grid = (tokens, triton.cdiv(width, block))
        factored_delta_kernel[grid](out, offsets, index.contiguous(), active.contiguous(), width, BLOCK=block)


def shared_delta_(out: Tensor, x: Tensor, weight: Tensor, masks: Tensor, edit: Tensor, active: Tensor) -> None:
    """The reference's, in place; rows that are not active move no memory."""
    width = out.shape[-1]
    tokens = active.numel()
    if tokens and width:
        shared_delta_kernel[(tokens, triton.cdiv(width, 16))](
            out, x.contiguous(), weight.contiguous(), masks, edit.contiguous(), active.contiguous(),
            x.shape[-1], width, masks.shape[1], IN=256, OUT=16,
        )  # fmt: skip

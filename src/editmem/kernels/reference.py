"""Plain PyTorch definitions of the operations that memories are made of. Slow is fine here, wrong is not."""

import torch
from torch import Tensor

WORD = 32
NONE = -1


def words(width: int) -> int:
    """How many int32 words hold `width` bits."""
    return -(-width // WORD)


def pack(bits: Tensor) -> Tensor:
    """Bool `[..., D]` to int32 `[..., ceil(D / 32)]`; bit j of word w is element 32 w + j."""
    return pack_bytes(torch.nn.functional.pad(bits, (0, -bits.shape[-1] % WORD))).view(torch.int32)


def unpack(packed: Tensor, width: int) -> Tensor:
    """The inverse of `pack`: int32 `[..., ceil(D / 32)]` to bool `[..., D]`."""
    return unpack_bytes(packed.contiguous().view(torch.uint8), width)


def pack_bytes(bits: Tensor) -> Tensor:
    """Bool `[..., D]` to uint8 `[..., ceil(D / 8)]`; bit j of byte w is element 8 w + j."""
    eights = torch.nn.functional.pad(bits, (0, -bits.shape[-1] % 8)).unflatten(-1, (-1, 8)).to(torch.uint8)
    return (eights << torch.arange(8, dtype=torch.uint8, device=bits.device)).sum(-1, dtype=torch.uint8)


def unpack_bytes(packed: Tensor, width: int) -> Tensor:
    """The inverse of `pack_bytes`: uint8 `[..., ceil(D / 8)]` to bool `[..., D]`."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed[..., None] >> shifts) & 1).bool().flatten(-2)[..., :width]


def popcount(packed: Tensor) -> Tensor:
    """Number of set bits in each int32 word, same shape."""
    v = packed - ((packed >> 1) & 0x55555555)
    v = (v & 0x33333333) + ((v >> 2) & 0x33333333)
    v = (v + (v >> 4)) & 0x0F0F0F0F
    return ((v * 0x01010101) >> 24) & 0xFF


def tophash(features: Tensor, background: Tensor, permutation: Tensor, k: int) -> Tensor:
    """TopHash masks (MEMOIR, section 3.1).

    Args:
        features: `[..., D]`, pooled activations of a prompt; any floating dtype, compared in float32.
        background: float32 `[D]`, the mean feature of prompts that are not edits.
        permutation: int64 `[D]`; the mask holds `permutation[j]` for each of the k largest `|feature_j|`.
        k: bits set in every mask, 1 to D. Of equal magnitudes the lower index goes first.

    Returns:
        the masks, packed, int32 `[..., ceil(D / 32)]`.
    """
    magnitude = (features.float() - background).abs()
    top = permutation[magnitude.sort(dim=-1, descending=True, stable=True).indices[..., :k]]
    mask = torch.zeros(features.shape, dtype=torch.bool, device=features.device).scatter(-1, top, True)
    return pack(mask)


def overlaps(queries: Tensor, masks: Tensor) -> Tensor:
    """Int32 `[Q, N]`: bits that each packed query `[Q, words]` shares with each packed mask `[N, words]`."""
    rows = [popcount(query & masks).sum(-1, dtype=torch.int32) for query in queries.unbind(0)]
    return torch.stack(rows) if rows else queries.new_zeros((0, masks.shape[0]))


def match(queries: Tensor, masks: Tensor, alive: Tensor, bits: int, top: int) -> tuple[Tensor, Tensor]:
    """The masks that share most bits with each query, best first, the lower row first on ties.

    Args:
        queries: int32 `[Q, words]`.
        masks: int32 `[N, words]`.
        alive: bool `[N]`; the others are never found.
        bits: how many bits each mask has that is alive.
        top: how many to find.

    Returns:
        overlaps int32 `[Q, top]` and rows int64 `[Q, top]`, both -1 where there are fewer.
    """
    counts = torch.where(alive, overlaps(queries, masks), NONE)
    return ranked(torch.nn.functional.pad(counts, (0, max(0, top - masks.shape[0])), value=NONE), top)


def ranked(counts: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The `top` best of int32 `[Q, N]` counts, -1 meaning none; as `match` returns them."""
    best = counts.sort(dim=1, descending=True, stable=True)
    values, rows = best.values[:, :top].contiguous(), best.indices[:, :top]
    return values, torch.where(values >= 0, rows, NONE)


def factored_delta(out: Tensor, offsets: Tensor, index: Tensor, active: Tensor) -> Tensor:
    """`out` plus, at each active token, one row of `offsets`; added in float32 (or wider) and rounded once.

    Args:
        out: `[..., d]`.
        offsets: `[M, d]`.
        index: int64 `[...]`, which row; arbitrary, but a valid row, where not active.
        active: bool `[...]`.
    """
    wide = torch.promote_types(out.dtype, torch.float32)
    added = (out.to(wide) + offsets[index].to(wide)).to(out.dtype)
    return torch.where(active[..., None], added, out)


def shared_delta(out: Tensor, x: Tensor, weight: Tensor, masks: Tensor, edit: Tensor, active: Tensor) -> Tensor:
    """`out + W (m * x)` at each active token, with the mask m of its edit (MEMOIR, equation 4); summed in float32.

    Args:
        out: `[..., d]`.
        x: `[..., D]`.
        weight: `[d, D]`, W.
        masks: int32 `[N, ceil(D / 32)]`, packed.
        edit: int64 `[...]`, which mask; arbitrary, but a valid row, where not active.
        active: bool `[...]`.
    """
    wide = torch.promote_types(out.dtype, torch.float32)
    chosen = torch.where(unpack(masks[edit], x.shape[-1]), x, 0).to(wide)
    added = (out.to(wide) + chosen @ weight.to(wide).T).to(out.dtype)
    return torch.where(active[..., None], added, out)

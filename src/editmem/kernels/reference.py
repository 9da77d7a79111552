"""Plain PyTorch definitions of the operations that memories are made of. Slow is fine here, wrong is not."""

import torch
from torch import Tensor

WORD = 32


def words(width: int) -> int:
    """How many int32 words hold `width` bits."""
    return -(-width // WORD)


def pack(bits: Tensor) -> Tensor:
    """Bool `[..., D]` to int32 `[..., ceil(D / 32)]`; bit j of word w is element 32 w + j."""
    width = bits.shape[-1]
    padded = torch.nn.functional.pad(bits, (0, words(width) * WORD - width))
    powers = torch.ones(WORD, dtype=torch.int64, device=bits.device) << torch.arange(WORD, device=bits.device)
    total = (padded.unflatten(-1, (-1, WORD)).long() * powers).sum(-1)
    return torch.where(total >= 1 << 31, total - (1 << 32), total).to(torch.int32)


def unpack(packed: Tensor, width: int) -> Tensor:
    """The inverse of `pack`: int32 `[..., ceil(D / 32)]` to bool `[..., D]`."""
    shifts = torch.arange(WORD, dtype=torch.int32, device=packed.device)
    return ((packed[..., None] >> shifts) & 1).bool().flatten(-2)[..., :width]


def popcount(packed: Tensor) -> Tensor:
    """Number of set bits in each int32 word, same shape."""
    v = packed - ((packed >> 1) & 0x55555555)
    v = (v & 0x33333333) + ((v >> 2) & 0x33333333)
    v = (v + (v >> 4)) & 0x0F0F0F0F
    return ((v * 0x01010101) >> 24) & 0xFF


def tophash(features: Tensor, background: Tensor, permutation: Tensor, k: int) -> Tensor:
    """TopHash masks (MEMOIR, section 3.1), packed.

    Args:
        features: `[..., D]`, pooled activations of a prompt; any floating dtype, compared in float32.
        background: float32 `[D]`, the mean feature of prompts that are not edits.
        permutation: int64 `[D]`; the mask holds `permutation[j]` for each of the k largest `|feature_j|`.
        k: bits set in every mask, 1 to D. Of equal magnitudes the lower index goes first.

    Returns:
        int32 `[..., ceil(D / 32)]`.
    """
    magnitude = (features.float() - background).abs()
    top = magnitude.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    mask = torch.zeros(features.shape, dtype=torch.bool, device=features.device)
    return pack(mask.scatter(-1, permutation[top], True))


def overlaps(queries: Tensor, masks: Tensor) -> Tensor:
    """Int32 `[Q, N]`: bits that each packed query `[Q, words]` shares with each packed mask `[N, words]`."""
    rows = [popcount(query & masks).sum(-1, dtype=torch.int32) for query in queries.unbind(0)]
    return torch.stack(rows) if rows else queries.new_zeros((0, masks.shape[0]))


def match(queries: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """The best mask for each query: (overlap int32 `[Q]`, row int64 `[Q]`), the lowest row on ties."""
    counts = overlaps(queries, masks)
    best = counts.max(dim=1).values
    return best, (counts == best[:, None]).to(torch.uint8).argmax(dim=1)

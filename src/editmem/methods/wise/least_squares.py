"""Least squares inside a mask: the weight that gives wanted outputs at some inputs and little at all others."""

import torch
from torch import Tensor


def solve(keys: Tensor, outputs: Tensor, mask: Tensor, ridge: float, tolerance: float = 1e-2, most: int = 60) -> Tensor:
    """The W inside `mask` with the least `|keys Wᵀ - outputs|² + ridge |W|²`.

    Conjugate gradients on the masked normal equations, preconditioned by the inverse of the unmasked ones, which
    is exact where the mask is full. Always from zero: the same keys give the same bits.

    Args:
        keys: float32 `[P, D]`.
        outputs: float32 `[P, d]`.
        mask: bool `[d, D]`.
        ridge: above 0.
        tolerance: the relative residual to stop at.
        most: iterations.

    Returns:
        float32 `[d, D]`.
    """
    gram = keys @ keys.T
    gram.diagonal().add_(ridge)
    factor = torch.linalg.cholesky(gram)

    def normal(weight: Tensor) -> Tensor:
        return ((weight @ keys.T) @ keys + ridge * weight) * mask

    def preconditioned(residual: Tensor) -> Tensor:
        inside = torch.cholesky_solve((residual @ keys.T).T, factor).T
        return (residual - inside @ keys) * mask

    weight = torch.zeros(mask.shape, dtype=keys.dtype, device=keys.device)
    residual = (outputs.T @ keys) * mask
    direction = preconditioned(residual)
    start = product = (residual * direction).sum()
    for _ in range(most):
        if not product > tolerance**2 * start:
            break
        image = normal(direction)
        step = product / (direction * image).sum()
        weight += step * direction
        residual -= step * image
        better = preconditioned(residual)
        following = (residual * better).sum()
        direction = better + (following / product) * direction
        product = following
    return weight


def factor(rows: Tensor, rank: int) -> Tensor:
    """`[at most rank, D]` whose second moment is nearest to that of `rows` `[M, D]`."""
    _, vectors = torch.linalg.eigh(rows @ rows.T)
    return vectors[:, -rank:].T @ rows

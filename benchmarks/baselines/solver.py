"""The linear algebra of closed-form editing: the solver, null spaces, running statistics."""

from collections.abc import Mapping

import torch
from torch import Tensor

SAME = 1e-9  # keys that differ by less, relatively and squared, count as one


def solve(keys: Tensor, residuals: Tensor, preserve: Tensor, *, equality: bool = False) -> Tensor:
    """The change of a weight that gives N keys new outputs and others the outputs that they had.

    With keys K `[D, N]`, residuals R and A = `preserve`, both of "A Unified Framework for Model Editing" (arXiv
    2403.14236, section 3), which minimise tr(X A Xᵀ) over the changes X:

    - equality: subject to X K = R, so that X = R (Kᵀ A⁻¹ K)⁻¹ Kᵀ A⁻¹. With N = 1 that is ROME (2202.05262,
      equation 2), with more it is EMMET (2403.14236).
    - else: plus |X K - R|², so that X = R Kᵀ (A + K Kᵀ)⁻¹, which is MEMIT (2210.07229, equation 14).

    Args:
        keys: `[D, N]`; with equality, keys that are linearly dependent get outputs as near as can be.
        residuals: `[D_out, N]`.
        preserve: `[D, D]`, symmetric and positive definite.
        equality: see above.

    Returns:
        `[D_out, D]`, in the residuals' type; worked out in float64.
    """
    k, r, a = keys.double(), residuals.double(), preserve.double()
    if equality:
        directions = torch.linalg.solve(a, k)
        change = torch.linalg.pinv(k.T @ directions, rtol=SAME, hermitian=True) @ directions.T
    else:
        change = torch.linalg.solve(a + k @ k.T, k).T
    return (r @ change).to(residuals.dtype)


def solve_within(basis: Tensor, keys: Tensor, residuals: Tensor, preserve: Tensor) -> Tensor:
    """As `solve` without equality, over changes that act on the span of `basis` only.

    AlphaEdit's projected solution (arXiv 2410.02355): with P = basis basisᵀ and A = `preserve` it is
    R Kᵀ P (A P + K Kᵀ P)⁻¹ there, written in the coordinates of the basis.

    Args:
        basis: `[D, S]`, orthonormal columns.
        keys, residuals, preserve: as of `solve`.
    """
    return solve(basis.T @ keys, residuals, basis.T @ preserve @ basis) @ basis.T


def null_space(moment: Tensor, threshold: float) -> Tensor:
    """Orthonormal directions `[D, S]` that keys hardly have a part in, as AlphaEdit takes them.

    Args:
        moment: E[k kᵀ] of the keys to preserve, `[D, D]`.
        threshold: eigenvalues below it count as 0, in units of the mean eigenvalue.
    """
    values, vectors = torch.linalg.eigh(moment.double())
    return vectors[:, values < threshold * values.mean()].to(moment.dtype)


class Running:
    """Mean and variance of everything seen so far, updated batch by batch (Chan et al. 1979).

    UltraEdit's lifelong normalisation (arXiv 2505.14679) puts keys and gradients through it.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.count = torch.zeros((), device=device)
        self.mean = torch.zeros(width, device=device)
        self.squares = torch.zeros(width, device=device)  # sum of squared deviations from the mean

    def update(self, rows: Tensor) -> None:
        """Take in rows `[N, D]`."""
        seen, count = self.count, self.count + len(rows)
        apart = rows.mean(0) - self.mean
        self.squares = self.squares + (rows - rows.mean(0)).square().sum(0) + apart.square() * seen * len(rows) / count
        self.mean = self.mean + apart * len(rows) / count
        self.count = count

    def normalise(self, rows: Tensor) -> Tensor:
        """Rows `[N, D]` less the mean, in units of the standard deviation; 0 where nothing ever varied."""
        deviation = (self.squares / (self.count - 1).clamp(min=1)).sqrt()
        return torch.where(deviation > 0, (rows - self.mean) / deviation.clamp(min=1e-30), 0)

    def state(self) -> dict[str, Tensor]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]

"""States compared by what matters in them: what is asked, whoever is named; what is shown, however it is seen."""

import torch
from torch import Tensor, nn

from editmem.state import Stored


class Whitening(Stored):
    """Unit vectors that are near within a class and far between classes.

    States of prompts move with the name in them as well as with the question; those of pictures with the view as well
    as with what is shown. How they move within a class is seen from built-in examples, of the same questions put to
    several names, or the same things in several views; those directions are damped, as within-class covariance
    normalisation does (Hatch, Kajarekar and Stolcke 2006, "Within-class covariance normalization for SVM-based speaker
    recognition").

    Args:
        width: d, of the host's states.
        smoothing: weight of the identity, of the same trace, against the covariance that was seen; 1 for no damping.

    Attributes:
        background: float32 `[d]`, the mean state of neutral examples.
        directions: float32 `[R, d]`, orthonormal, in which states move most within a class.
        damping: float32 `[R]`, the share of each that is taken away.
    """

    RANK = 24
    """R."""

    background: Tensor
    directions: Tensor
    damping: Tensor

    def __init__(self, width: int, smoothing: float = 0.7) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.register_buffer("background", torch.full((width,), torch.nan, dtype=torch.float32))
        self.register_buffer("directions", torch.zeros((0, width), dtype=torch.float32))
        self.register_buffer("damping", torch.zeros(0, dtype=torch.float32))

    def fit(self, neutral: Tensor, grid: Tensor) -> None:
        """Learn background and directions.

        Args:
            neutral: `[P, d]`, neutral states.
            grid: `[names, classes, d]`, states of the same classes (questions) with several names, or in several views.
        """
        self.background = neutral.float().mean(0)
        moved = (grid.float() - grid.float().mean(0)).flatten(0, 1)
        _, size, directions = torch.linalg.svd(moved, full_matrices=False)
        variance = size.square()
        even = self.smoothing * variance.sum() / moved.shape[1]
        variance = variance[: self.RANK]
        self.directions = directions[: self.RANK].contiguous()
        self.damping = 1 - (even / (even + (1 - self.smoothing) * variance)).sqrt()

    def forward(self, states: Tensor) -> Tensor:
        """Unit vectors, float32 `[..., d]`, of states `[..., d]`."""
        centred = states.float() - self.background
        centred = centred - (centred @ self.directions.T * self.damping) @ self.directions
        return nn.functional.normalize(centred, dim=-1)

    def threshold(self, grid: Tensor, rate: float) -> Tensor:
        """The cosine that a share `rate` of pairs with the same name and of different classes reaches.

        Args:
            grid: as in `fit`.
            rate: 0 to 1.
        """
        states = self(grid)
        another = ~torch.eye(grid.shape[1], dtype=torch.bool, device=grid.device)
        return torch.quantile((states @ states.transpose(1, 2))[:, another].flatten(), 1 - rate).clamp(min=1e-3)

"""The settings of GRACE (arXiv 2211.11031), and the memory that they make."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from editmem.checks import check_choices, check_ranges
from editmem.errors import SpecError
from editmem.hosts.structure import SiteInfo
from editmem.memory import Spec
from editmem.methods.grace.radius_router import RadiusRouter
from editmem.residual.memory import ResidualMemory
from editmem.residual.offsets import FactoredStorage
from editmem.routing.question_router import QuestionRouter
from editmem.routing.router import Router

ROUTERS = ("radius", "questions")


@dataclass(frozen=True)
class GraceSpec(Spec):
    """GRACE (arXiv 2211.11031), the retrieval baseline.

    Attributes:
        router: how a prompt finds its edit: by the "radius" around the edit's state (paper), or by names and
            "questions", as in `MemoirSpec`.
        radius: the initial deferral radius, in units of the site's input; None for `reach` of what neutral
            prompts lie apart. The paper's radii, 1 to 3, belong to its hosts.
        reach: see `radius`; a share of the median distance between two neutral prompts.
        margin, steps, learning_rate, renderings: as in `MemoirSpec`.

    Examples:
        >>> import editmem
        >>> editmem.GraceSpec(radius=2.0).radius
        2.0
    """

    method: ClassVar[str] = "grace"

    router: str = "radius"
    radius: float | None = None
    reach: float = 0.3
    margin: float = 4.0
    steps: int = 60
    learning_rate: float = 0.2
    renderings: bool = True

    def __post_init__(self) -> None:
        check_choices(self, router=ROUTERS)
        check_ranges(self, reach=(0.0, 10.0), margin=(0.0, 100.0), steps=(1, 10_000), learning_rate=(0.0, 10.0))
        if self.radius is not None and not self.radius > 0:
            raise SpecError(f"radius must be above 0, or None, got {self.radius!r}")

    def build(self, site: SiteInfo, dtype: torch.dtype, device: torch.device) -> "Codebook":
        router: Router = QuestionRouter(None)
        if self.router == "radius":
            router = RadiusRouter(site.in_features, self.radius, self.reach)
        return Codebook(self, router, FactoredStorage(site.out_features, dtype, self.learning_rate)).to(device)


class Codebook(ResidualMemory):
    """Values are learned offsets, one for each token of the answer, at the prompt's end and after; see `answers`."""

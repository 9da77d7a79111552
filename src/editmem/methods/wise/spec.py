"""The settings of WISE (arXiv 2405.14768)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from editmem.checks import check_choices, check_ranges
from editmem.errors import SpecError
from editmem.hosts.structure import SiteInfo
from editmem.memory import Spec
from editmem.methods.wise.memory import QUESTIONS, SideMemory
from editmem.methods.wise.merging import MERGES
from editmem.methods.wise.scope import ACTIVATIONS, ROUTINGS

TRAININGS = ("solve", "sgd")
INFERENCES = ("retrieve", "merge")


@dataclass(frozen=True)
class WiseSpec(Spec):
    """WISE (arXiv 2405.14768).

    Attributes:
        inference: "retrieve" lets the shard with the highest score act (WISE-Retrieve); "merge" makes all full
            shards one, beside the one that is being filled (WISE-Merge).
        training: "solve" learns each edit's outputs and makes the shard by least squares; "sgd" is the paper's
            masked gradient descent with margins, one edit after the other.
        routing: "calibrated", "paper" or "easyedit", by what each side would add; see `Scope`. "questions": by names
            and questions, as in `MemoirSpec`, to the side that the edit is in; not for pictures. "solve" needs
            "calibrated" or "questions".
        density: share of the weight in a shard's mask, ρ.
        shard_edits: edits in a shard; None for what fits: density * D / 20.
        group: full shards that are merged into one side ("retrieve").
        merging: one of `merging.MERGES`.
        keep: share of a shard that trimming or dropping leaves before merging.
        threshold: the score, in units of a side's own edits, from which it acts; None to calibrate it ("calibrated").
        false_match_rate: share that may match of built-in look-alikes, and of edits the sides of other edits, for
            the calibration; None for 0.1, or with "questions" as in `MemoirSpec`.
        act_ratio: factor on the lowest score of a side's edits ("paper", "easyedit"); the paper has 1.
        activation: of the host's feed-forward block, for routing "easyedit".
        strength: what an edit adds at least at its prompt's end, in units of the site's output norm ("solve").
        ridge, apart: see `Solver` ("solve").
        alpha, beta, gamma: margins ("sgd"), in units of the site's output norm, or absolute.
        absolute: whether the margins are absolute.
        replay: whether edits of other shards are kept from matching the one that is learned ("sgd"; appendix B.3).
        margin, steps, renderings, context_templates: as in `MemoirSpec`.
        learning_rate: step size. "solve": of Adam, as a share of the site's mean output magnitude. "sgd": of plain
            descent.
        seed: of the masks.

    Examples:
        >>> import editmem
        >>> editmem.WiseSpec(routing="questions").to_dict()["method"]
        'wise'
        >>> editmem.WiseSpec.paper().training
        'sgd'
    """

    method: ClassVar[str] = "wise"

    inference: str = "retrieve"
    training: str = "solve"
    routing: str = "calibrated"
    density: float = 0.5
    shard_edits: int | None = None
    group: int = 1
    merging: str = "ties"
    keep: float = 0.53
    threshold: float | None = None
    false_match_rate: float | None = None
    act_ratio: float = 1.0
    activation: str = "silu"
    strength: float = 2.0
    ridge: float = 3.0
    apart: float = 0.03
    alpha: float = 0.25
    beta: float = 1.0
    gamma: float = 0.5
    absolute: bool = False
    replay: bool = False
    margin: float = 4.0
    steps: int = 60
    learning_rate: float | None = None
    renderings: bool = True
    context_templates: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(
            self,
            inference=INFERENCES,
            training=TRAININGS,
            routing=(*ROUTINGS, QUESTIONS),
            merging=MERGES,
            activation=tuple(ACTIVATIONS),
        )
        if self.training == "solve" and self.routing not in ("calibrated", QUESTIONS):
            raise SpecError(
                f'training="solve" needs routing="calibrated" or "questions", got {self.routing!r}; or use '
                'training="sgd"'
            )
        check_ranges(
            self, density=(1e-6, 1.0), keep=(1e-6, 1.0), false_match_rate=(0.0, 1.0), act_ratio=(0.0, 10.0),
            strength=(1e-3, 100.0), ridge=(1e-6, 1e6), apart=(0.0, 100.0), group=(1, 1000), margin=(0.0, 100.0),
            steps=(1, 10_000), context_templates=(0, 10),
        )  # fmt: skip
        if self.shard_edits is not None and self.shard_edits < 1:
            raise SpecError(f"shard_edits must be at least 1, or None, got {self.shard_edits!r}")

    @classmethod
    def paper(cls, **changes: Any) -> "WiseSpec":
        """The settings of the paper (table 10), as far as they carry over between models."""
        settings = {
            "inference": "merge", "training": "sgd", "routing": "paper", "density": 0.2, "shard_edits": 500,
            "alpha": 5.0, "beta": 20.0, "gamma": 10.0, "absolute": True, "learning_rate": 1.0, "steps": 70,
            "renderings": False, "context_templates": 10,
        }  # fmt: skip
        return cls(**{**settings, **changes})

    @classmethod
    def easyedit(cls, **changes: Any) -> "WiseSpec":
        """The settings that the reference implementation ships for a 7B model, where they differ from the paper."""
        settings = {"inference": "retrieve", "routing": "easyedit", "group": 2, "act_ratio": 0.88}
        return cls.paper(**{**settings, **changes})

    def build(self, site: SiteInfo, dtype: torch.dtype, device: torch.device) -> "SideMemory":
        return SideMemory(self, site, dtype).to(device)

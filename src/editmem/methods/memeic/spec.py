"""The settings of MemEIC (arXiv 2510.25798), whole or in part."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch

from editmem.checks import check_choices, check_ranges
from editmem.errors import HostError, SpecError
from editmem.hosts.structure import Host, SiteInfo
from editmem.lookup.spec import LookupSpec
from editmem.memory import Spec
from editmem.methods.memeic.evidence import FORMS
from editmem.methods.memeic.memory import MemeicMemory

PARTS = {
    "evidence": (
        "index", "router", "text_encoder", "threshold", "false_match_rate", "picture_threshold", "picture_miss_rate",
        "picture_false_match_rate", "question_false_match_rate",
    ),
    "storage": ("both", "start", "rank", "alpha", "learning_rate", "weight_decay", "steps", "margin", "seed"),
    "connector": ("connector_rank", "connector_alpha"),
}  # fmt: skip
"""The settings that bring each part of MemEIC, and those that go with them."""


@dataclass(frozen=True)
class MemeicSpec(LookupSpec):
    """MemEIC: external memory, dual adapters and knowledge connector, together or in part.

    How edits are found, `LookupSpec` says.

    Attributes:
        evidence: how what was found is put into the prompt: "plain" (question and answer in front), "paper" (under
            the headings of MemEIC's released prompt), or None for not at all.
        storage: "per-edit": each edit has adapters of its own; forgetting is exact. "shared": one visual and one
            textual adapter for all, as in the paper; forgetting learns the others again. None: no adapters.
        connector: whether query and key projections are adapted where both modalities are in play. It acts once it
            has been trained (`editmem.connecting`).
        both: which adapters act where both modalities are in play: that of the edit that answers, "textual", or "all"
            (paper).
        start: the share of the blocks below all adapters; 0.0 for adapters in every block (paper).
        rank, alpha: of the adapters (paper: 8, 32, for all edits together).
        learning_rate, weight_decay, steps, margin: of Adam; an edit is learned when each target token beats all others
            together by `margin` nats (paper: 1e-4, 0.01, always 10 steps).
        connector_rank, connector_alpha: of the connector (paper: 8, 16).
        renderings: as in `MemoirSpec`.
        seed: of A of the adapters.

    Examples:
        >>> import editmem
        >>> editmem.MemeicSpec(connector=True, evidence="paper", both="all").storage
        'per-edit'
    """

    method: ClassVar[str] = "memeic"

    evidence: str | None = "plain"
    storage: str | None = "per-edit"
    connector: bool = False
    both: str = "textual"
    start: float = 0.5
    rank: int = 2
    alpha: float = 8.0
    learning_rate: float = 1e-2
    weight_decay: float = 0.0
    steps: int = 60
    margin: float = 4.0
    connector_rank: int = 8
    connector_alpha: float = 16.0
    renderings: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self, evidence=(*FORMS, None), storage=("per-edit", "shared", None), both=("textual", "all"))
        check_ranges(self, rank=(1, 4096), connector_rank=(1, 4096), learning_rate=(0.0, 10.0), margin=(0.0, 100.0))
        check_ranges(self, start=(0.0, 1.0), weight_decay=(0.0, 1.0), steps=(0, 10_000))

    @classmethod
    def paper(cls) -> "MemeicSpec":
        """The settings of the paper, as far as they are known; thresholds stay calibrated."""
        return cls(
            evidence="paper", storage="shared", both="all", start=0.0, rank=8, alpha=32.0,
            learning_rate=1e-4, weight_decay=0.01, steps=10, margin=100.0,
        )  # fmt: skip

    def joined(self, other: Spec) -> Spec | None:
        if not isinstance(other, MemeicSpec):
            return None
        taken = dataclasses.asdict(self)
        for part, settings in PARTS.items():
            if getattr(self, part) and getattr(other, part):
                raise SpecError(f"{self.method!r} and {other.method!r} both bring {part}; give it once")
            if getattr(other, part):
                taken |= {name: getattr(other, name) for name in (part, *settings)}
        return MemeicSpec(**taken)

    def build_on(self, host: Host, dtype: torch.dtype) -> tuple[SiteInfo, "MemeicMemory"]:
        if self.evidence is None and self.storage is None:
            raise SpecError(f"{self.method!r}: evidence=None and storage=None leave nothing for an edit to act with")
        if host.enclosed:
            raise HostError(
                f"the {type(host.model).__name__} in this model is called with embeddings, so that its prompts cannot "
                "be looked up; 'memoir' edits it in words"
            )
        read = host.site(self.layer, self.module)
        sites: list[SiteInfo] = []
        if self.storage is not None:
            first = min(round(self.start * len(host.blocks)), read.block, len(host.blocks) - 1)
            sites = [site for site in host.feed_forward_linears() if site.block >= first]
        attention = host.query_key_linears() if self.connector else []
        memory = MemeicMemory(self, host, read, sites, attention, dtype).to(host.device)
        return (sites[0] if sites else read), memory


@dataclass(frozen=True)
class ExternalSpec(MemeicSpec):
    """The external memory alone: evidence in the prompt, and nothing learned."""

    method: ClassVar[str] = "external"

    storage: str | None = None
    steps: int = 0


@dataclass(frozen=True)
class DualAdaptersSpec(MemeicSpec):
    """The adapters alone: no evidence in the prompt."""

    method: ClassVar[str] = "dual-adapters"

    evidence: str | None = None


@dataclass(frozen=True)
class ConnectorSpec(MemeicSpec):
    """The connector alone, to be joined with other parts: `["dual-adapters", "connector"]`."""

    method: ClassVar[str] = "connector"

    evidence: str | None = None
    storage: str | None = None
    connector: bool = True

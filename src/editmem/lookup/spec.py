"""The settings of memories whose edits are looked up before the host reads a prompt."""

import dataclasses
from dataclasses import dataclass

from editmem.checks import check_choices, check_ranges
from editmem.memory import Spec
from editmem.storage.vector_index import INDEXES

ROUTERS = ("names", "questions")


@dataclass(frozen=True)
class LookupSpec(Spec):
    """How edits are found.

    Attributes:
        index: what holds the pictures' vectors: "exact", "faiss" or "qdrant"; see `vector_index.INDEXES`.
        router: how a prompt finds a textual edit: by "names" or "questions", as in `MemoirSpec`.
        text_encoder: a text encoder of `transformers`, as a folder or a Hub name, to compare textual edits and prompts
            by; None for the host's own states ("names") or the built-in encoder ("questions").
        threshold: the score from which a textual edit acts; None to calibrate it.
        false_match_rate: as in `MemoirSpec`; None for 0.03 ("questions") or 0.09.
        picture_threshold: the cosine from which a picture is that of an edit; None to calibrate it.
        picture_miss_rate: share of views of the same built-in picture that may be missed, for the calibration.
        picture_false_match_rate: share of the edits' own pictures that may pass for that of another edit: the threshold
            rises as edits crowd.
        question_false_match_rate: share of other questions about a built-in picture that may pass for an edit's own.
    """

    index: str = "exact"
    router: str = "questions"
    text_encoder: str | None = None
    threshold: float | None = None
    false_match_rate: float | None = None
    picture_threshold: float | None = None
    picture_miss_rate: float = 0.05
    picture_false_match_rate: float = 0.02
    question_false_match_rate: float = 0.005

    def __post_init__(self) -> None:
        check_choices(self, index=tuple(INDEXES), router=ROUTERS)
        check_ranges(self, threshold=(-1.0, 1.0), picture_threshold=(-1.0, 1.0))
        rates = [field.name for field in dataclasses.fields(self) if field.name.endswith(("match_rate", "miss_rate"))]
        check_ranges(self, **dict.fromkeys(rates, (0.0, 1.0)))

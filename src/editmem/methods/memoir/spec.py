"""The settings of MEMOIR (arXiv 2506.07899), and the memory that they make."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from editmem.checks import check_choices, check_ranges
from editmem.errors import SpecError
from editmem.hosts.structure import SiteInfo
from editmem.memory import Spec
from editmem.methods.memoir.shared_matrix import SharedStorage
from editmem.residual.memory import ResidualMemory
from editmem.residual.offsets import FactoredStorage, Storage
from editmem.routing.name_router import NameRouter
from editmem.routing.question_router import QuestionRouter
from editmem.routing.router import Router
from editmem.routing.sentence_encoder import SentenceEncoder
from editmem.routing.text_questions import TextQuestions
from editmem.routing.tophash import POOLINGS, TopHashRouter

STORAGES = ("factored", "shared")
ROUTERS = ("names", "questions", "tophash")
CALIBRATED_RATE = 0.08
"""The share of look-alikes that may match, where thresholds are calibrated and the user gives none."""


@dataclass(frozen=True)
class MemoirSpec(Spec):
    """MEMOIR (arXiv 2506.07899).

    Attributes:
        storage: "factored" keeps each edit's output offsets apart: no interference, exact forgetting.
            "shared" writes all edits into one matrix W_m, as in the paper; forgetting replays the others.
        router: how a prompt finds its edit. "names" compares what is asked, by the host's state at the prompt's
            end, and about whom, by the words that both prompts share; "questions" compares names and questions by a
            built-in encoder, on hosts of any size; "tophash" compares masks, as in the paper.
        encoder: a sentence encoder of `transformers`, as a folder or a Hub name, that tells what is asked in the place
            of the built-in one ("questions"): for other languages. It reads text, which costs a pass of it a prompt.
        pooling: what a prompt is hashed from ("tophash"): its "last" token or the "mean" of its tokens (paper).
        density: k / D ("tophash"), the share of the activations in a mask. The paper has 4096 / 14336 = 0.286.
        threshold: the router's score from which an edit acts; None to calibrate it.
        false_match_rate: share of look-alikes (the same name, something else asked) that may match; None for 0.03
            ("questions") or 0.08. What this means for real questions, `docs/routing.md` shows.
        margin: an edit is learned when each target token beats all others together by this many nats.
        steps: most optimiser steps for an edit.
        learning_rate: step size. "factored": of Adam, as a share of the site's mean output magnitude.
            "shared": of SGD with gradients clipped to norm 1 (paper: 1.0).
        renderings: write each edit for plain text and for a user's turn of a chat, whichever way it is given,
            where the tokenizer has a chat template.
        context_templates: behind how many short prefixes of other text an edit is learned too (paper: 10).
        seed: of the fixed permutation.

    Examples:
        >>> import editmem
        >>> editmem.MemoirSpec(steps=100).steps
        100
        >>> editmem.MemoirSpec(storage="heap")
        Traceback (most recent call last):
            ...
        editmem.errors.SpecError: storage must be one of ('factored', 'shared'), got 'heap'
    """

    method: ClassVar[str] = "memoir"

    storage: str = "factored"
    router: str = "questions"
    encoder: str | None = None
    pooling: str = "last"
    density: float = 0.25
    threshold: float | None = None
    false_match_rate: float | None = None
    margin: float = 4.0
    steps: int = 60
    learning_rate: float | None = None
    renderings: bool = True
    context_templates: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.storage == "shared" and self.router != "tophash":
            raise SpecError('storage="shared" writes into the columns of masks; it needs router="tophash"')
        if self.encoder is not None and self.router != "questions":
            raise SpecError(f'encoder needs router="questions", got router={self.router!r}; leave one of them out')
        check_choices(self, storage=STORAGES, router=ROUTERS, pooling=POOLINGS)
        check_ranges(
            self,
            density=(0.0, 1.0),
            false_match_rate=(0.0, 1.0),
            margin=(0.0, 100.0),
            steps=(1, 10_000),
            context_templates=(0, 10),
        )

    @classmethod
    def paper(cls, **changes: Any) -> "MemoirSpec":
        """The settings of the paper (section A.4.3), as far as they carry over between models."""
        settings = {
            "router": "tophash", "renderings": False,
            "storage": "shared", "pooling": "mean", "density": 4096 / 14336, "learning_rate": 1.0,
            "steps": 70, "context_templates": 10,
        }  # fmt: skip
        return cls(**{**settings, **changes})

    def build(self, site: SiteInfo, dtype: torch.dtype, device: torch.device) -> "ResidualMemory":
        k = max(1, round(self.density * site.in_features))
        router: Router
        rate = CALIBRATED_RATE if self.false_match_rate is None else self.false_match_rate
        if self.router == "names":
            router = NameRouter(site.block_path, site.out_features, self.threshold, rate)
        elif self.router == "questions":
            other = None
            if self.encoder is not None:
                other = TextQuestions(SentenceEncoder(self.encoder, device), rate)
            router = QuestionRouter(self.threshold, self.false_match_rate, other)
        else:
            router = TopHashRouter(site.in_features, k, self.pooling, self.threshold, rate, self.seed)
        storage: Storage
        step = {"factored": 0.2, "shared": 1.0}[self.storage] if self.learning_rate is None else self.learning_rate
        if self.storage == "factored":
            storage = FactoredStorage(site.out_features, dtype, step, begins=True)
        else:
            storage = SharedStorage(site.in_features, site.out_features, step)
        return ResidualMemory(self, router, storage).to(device)

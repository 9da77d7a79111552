"""The figures of one record: MemEIC's teacher-forced ones, and beside them what the model says by itself.

The names are the paper's (arXiv 2510.25798). Each stands twice: teacher-forced as the paper scores it, and, with
" exact" or " unchanged" after it, of greedily generated text. `METRICS` has them all.
"""

from abc import ABC, abstractmethod

import numpy as np

from benchmarks.metrics.base import Score
from benchmarks.metrics.exact import says
from benchmarks.visual.observation import Observed, observe
from benchmarks.visual.questions import LOCAL, TARGETS, Asked
from benchmarks.visual.records import Answered, VisualRecord
from benchmarks.visual.session import Ids, VisualSession


class VisualMetric(ABC):
    """A figure with one definition.

    Args:
        name: what it is called in tables.
        asked: which questions of a record it is taken of.
    """

    group: str
    better = "higher"

    def __init__(self, name: str, asked: Asked) -> None:
        self.name, self.asked = name, asked

    def scores(self, record: VisualRecord, before: Observed, now: Observed) -> list[Score]:
        """One for each question."""
        return [Score(self.name, a.kind, record.id, self.value(a, before, now)) for a in self.asked(record)]

    @abstractmethod
    def value(self, asked: Answered, before: Observed, now: Observed) -> float:
        """From 0 to 1."""


class TokenAccuracy(VisualMetric):
    """Share of the target's tokens that are the likeliest, given the question and the true tokens before them.

    VLKEB's and MemEIC's accuracy (MemEIC's repository, losses.py): no text is generated, and a share may be right.
    """

    group = "teacher-forced"

    def value(self, asked: Answered, before: Observed, now: Observed) -> float:
        return now.right[asked.question, asked.answers[0]]


class TopAgreement(VisualMetric):
    """Share of places in the ordered lists of the k likeliest tokens that are the same before and after the edits.

    VLKEB's and MemEIC's locality (MemEIC's repository, MultimodalTrainer.py): both models read the question with its
    right answer, and the lists after every token count, the question's and the picture's included. k is 1 for questions
    without a picture and 10 for those with one, where the lists must agree rank by rank. Lists of unequal number, as
    when evidence is put in front of the question, are compared from the last one backwards.

    Args:
        k: see above.
        name, asked: as of `VisualMetric`.
    """

    group = "teacher-forced"

    def __init__(self, name: str, asked: Asked, k: int) -> None:
        super().__init__(name, asked)
        self.k = k

    def value(self, asked: Answered, before: Observed, now: Observed) -> float:
        key = asked.question, asked.answers[0], self.k
        return agreement(before.likely[key], now.likely[key])


class Exact(VisualMetric):
    """Whether the greedy answer begins with an accepted answer, as whole words: `benchmarks.metrics.exact` on pictures.

    Not in the paper; teacher-forced accuracy overstates what is said (Yang et al., arXiv 2502.11177).
    """

    group = "greedy exact"

    def value(self, asked: Answered, before: Observed, now: Observed) -> float:
        return float(any(says(now.said[asked.question], answer) for answer in asked.answers))


class Unchanged(VisualMetric):
    """Whether the greedy answer is the same text as the bare host's, right or wrong: `benchmarks.metrics.unchanged` on
    pictures. Not in the paper."""

    group = "greedy exact"

    def value(self, asked: Answered, before: Observed, now: Observed) -> float:
        return float(now.said[asked.question] == before.said[asked.question])


def agreement(one: Ids, other: Ids) -> float:
    """Share of equal entries of two `[T, k]` arrays, the longer one's first rows left out."""
    rows = min(len(one), len(other))
    return float(np.mean(one[len(one) - rows :] == other[len(other) - rows :]))


METRICS: dict[str, VisualMetric] = {
    metric.name: metric
    for metric in (
        *(TokenAccuracy(name, asked) for name, asked in TARGETS.items()),
        *(TopAgreement(name, asked, k) for name, (asked, k) in LOCAL.items()),
        *(Exact(f"{name} exact", asked) for name, asked in TARGETS.items()),
        *(Unchanged(f"{name} unchanged", asked) for name, (asked, _) in LOCAL.items()),
    )
}


def score(session: VisualSession, record: VisualRecord, before: Observed) -> list[Score]:
    """Every figure of a record.

    Args:
        session: as the edits have left it.
        record: whose questions are asked.
        before: what the bare host made of them.
    """
    return compare(record, before, observe(session, record))


def compare(record: VisualRecord, before: Observed, now: Observed) -> list[Score]:
    """Every figure of what was observed of a record."""
    return [found for metric in METRICS.values() for found in metric.scores(record, before, now)]

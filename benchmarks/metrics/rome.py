"""Success and magnitude, as ROME scores: is the new answer likelier than the true one?"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from benchmarks.metrics.base import QuestionMetric, Score
from benchmarks.metrics.questions import Questions, locality
from benchmarks.records import NEIGHBOUR, Probe, Record
from benchmarks.session import Scored, Session


class _Margin(QuestionMetric):
    """How much likelier one answer is than the other; records without a true answer are not asked.

    The probability of an answer is the geometric mean of its tokens' probabilities, as in ROME's code, so that answers
    of different lengths can be compared.
    """

    def __init__(self, name: str, questions: Questions, wanted: str = "new") -> None:
        super().__init__(name, questions)
        self._wanted = wanted

    def after(self, session: Session, records: Sequence[Record], before: Any) -> list[Score]:
        asked = [(record, probe) for record, probe in self.questions(records) if record.truth]
        new = session.scores([(probe.prompt, record.target) for record, probe in asked])
        true = session.scores([(probe.prompt, str(record.truth)) for record, probe in asked])
        return [
            Score(self.name, "", record.id, self._figure(*self._order(a, b)))
            for (record, _), a, b in zip(asked, new, true, strict=True)
        ]

    def _order(self, new: Scored, true: Scored) -> tuple[float, float]:
        likely = probability(new), probability(true)
        return likely if self._wanted == "new" else likely[::-1]

    @abstractmethod
    def _figure(self, wanted: float, other: float) -> float:
        """The figure from the probabilities of the two answers."""


class Success(_Margin):
    """Share of prompts after which the wanted answer is likelier than the other one.

    Meng et al., arXiv 2202.05262, section 3.4: efficacy score ES on edited prompts and paraphrase score PS, where the
    new answer is wanted, and neighbourhood score NS, where the true one is.

    Args:
        name: see `Metric`.
        questions: what is asked of the records.
        wanted: "new" or "true".
    """

    group = "probability"

    def _figure(self, wanted: float, other: float) -> float:
        return float(wanted > other)


class Magnitude(_Margin):
    """Mean difference between the probabilities of the wanted answer and the other one.

    Meng et al., arXiv 2202.05262, section 3.4: EM, PM and NM. Arguments as of `Success`.
    """

    group = "probability margin"

    def _figure(self, wanted: float, other: float) -> float:
        return wanted - other


def probability(scored: Scored) -> float:
    """Geometric mean of the probabilities of an answer's tokens."""
    return math.exp(-sum(scored.nll) / max(1, len(scored.nll)))


def neighbours(records: Sequence[Record]) -> list[tuple[Record, Probe]]:
    """The neighbourhood prompts: other subjects that share the true answer."""
    return [(record, probe) for record, probe in locality(records) if probe.kind == NEIGHBOUR]

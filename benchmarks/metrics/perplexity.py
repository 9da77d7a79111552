"""How surprising the targets are: PPL, its median, and mean negative log-likelihood."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.metrics.base import Metric, Score
from benchmarks.records import Record
from benchmarks.session import Session


class _OfTarget(Metric):
    group, better = "perplexity", "lower"

    def _nll(self, session: Session, records: Sequence[Record]) -> list[float]:
        """Mean negative log-likelihood of each target's tokens after its prompt, in nats."""
        scored = session.scores([(record.prompt, record.target) for record in records])
        return [statistics.fmean(found.nll) for found in scored]


class Nll(_OfTarget):
    """Negative log-likelihood per token of the target after its prompt, in nats; its mean over records is robust."""

    name = "NLL"

    def after(self, session: Session, records: Sequence[Record], before: Any) -> list[Score]:
        found = self._nll(session, records)
        return [Score(self.name, "", record.id, nll) for record, nll in zip(records, found, strict=True)]


class Perplexity(_OfTarget):
    """exp(NLL) of the target after its prompt.

    Its mean over records is what GRACE (arXiv 2211.11031) and WISE (arXiv 2405.14768) report for hallucinations; a few
    outliers decide it, so read it beside the median.
    """

    name = "perplexity"

    def after(self, session: Session, records: Sequence[Record], before: Any) -> list[Score]:
        found = self._nll(session, records)
        return [Score(self.name, "", record.id, _exp(nll)) for record, nll in zip(records, found, strict=True)]


class MedianPerplexity(_OfTarget):
    """Median over records of exp(NLL) of the target after its prompt: one figure of the whole run."""

    name = "median perplexity"

    def after(self, session: Session, records: Sequence[Record], before: Any) -> list[Score]:
        found = self._nll(session, records)
        return [Score(self.name, "", "", _exp(statistics.median(found)))] if found else []


def _exp(nll: float) -> float:
    return math.exp(min(nll, 700.0))  # exp(710) is more than a float holds

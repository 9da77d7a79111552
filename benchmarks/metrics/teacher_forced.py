"""Token accuracy under teacher forcing, as EasyEdit scores."""

from collections.abc import Sequence
from typing import Any

from benchmarks.metrics.base import Metric, QuestionMetric, Score
from benchmarks.metrics.questions import locality
from benchmarks.records import Probe, Record
from benchmarks.session import Scored, Session


class TokenAccuracy(QuestionMetric):
    """Share of the answer's tokens that are the likeliest, given the prompt and the answer's true tokens before them.

    EasyEdit's rewrite_acc, rephrase_acc and portability (Wang et al., arXiv 2308.07269): a third right is possible, and
    a model may score 1 and still say something else. Only the main answer counts there, and so it does here.
    """

    group = "teacher-forced"

    def after(self, session: Session, records: Sequence[Record], before: Any) -> list[Score]:
        asked = self.questions(records)
        scored = session.scores([(probe.prompt, probe.answers[0]) for _, probe in asked])
        return [
            Score(self.name, probe.kind, record.id, agreement(found.predicted, found.tokens))
            for (record, probe), found in zip(asked, scored, strict=True)
        ]


class TokenAgreement(Metric):
    """Share of the likeliest tokens along an unrelated question's answer that are the same before and after the edits.

    EasyEdit's locality (Wang et al., arXiv 2308.07269): both models read the question with its right answer, which
    neither needs to know. Questions without an answer are not asked.
    """

    name, group = "token locality", "teacher-forced"

    def before(self, session: Session, records: Sequence[Record]) -> list[list[int]]:
        """The likeliest tokens of the unedited model, by question."""
        return [list(found.predicted) for found in _along(session, _answered(records))]

    def after(self, session: Session, records: Sequence[Record], before: Sequence[Sequence[int]]) -> list[Score]:
        asked = _answered(records)
        return [
            Score(self.name, probe.kind, record.id, agreement(found.predicted, old))
            for (record, probe), found, old in zip(asked, _along(session, asked), before, strict=True)
        ]


def _answered(records: Sequence[Record]) -> list[tuple[Record, Probe]]:
    return [(record, probe) for record, probe in locality(records) if probe.answers]


def _along(session: Session, asked: Sequence[tuple[Record, Probe]]) -> list[Scored]:
    return session.scores([(probe.prompt, probe.answers[0]) for _, probe in asked])


def agreement(found: Sequence[int], wanted: Sequence[int]) -> float:
    """Share of equal tokens at equal places, of sequences of one length."""
    return sum(a == b for a, b in zip(found, wanted, strict=True)) / max(1, len(wanted))

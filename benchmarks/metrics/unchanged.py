"""Locality by unchanged text."""

from collections.abc import Sequence

from benchmarks.metrics.base import Metric, Score
from benchmarks.metrics.questions import locality
from benchmarks.records import Record
from benchmarks.session import Session

TOKENS = 8


class Unchanged(Metric):
    """Share of unrelated questions whose greedy answer, 8 tokens long, is the same text before and after the edits.

    The answer need not be right, only unchanged: locality (specificity) of Yao et al., arXiv 2305.13172, section 3,
    taken of generated text. Look-alikes, such as another relation of the edited subject, are kinds of their own.
    """

    name, group, tokens, as_users_ask = "locality", "greedy exact", TOKENS, False

    def before(self, session: Session, records: Sequence[Record]) -> dict[str, str]:
        """The answers of the unedited model, by prompt."""
        return self._answers(session, records)

    def after(self, session: Session, records: Sequence[Record], before: dict[str, str]) -> list[Score]:
        now = self._answers(session, records)
        return [
            Score(self.name, probe.kind, record.id, float(now[probe.prompt] == before[probe.prompt]))
            for record, probe in locality(records)
        ]

    def _answers(self, session: Session, records: Sequence[Record]) -> dict[str, str]:
        prompts = list(dict.fromkeys(probe.prompt for _, probe in locality(records)))
        return dict(zip(prompts, session.answers(prompts, self.tokens, self.as_users_ask), strict=True))

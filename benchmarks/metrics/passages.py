"""Out-of-distribution generalisation, on what others wrote about the subject."""

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.metrics.base import Metric, Score
from benchmarks.records import Record
from benchmarks.session import Session

LIKELY = 0.8


class OodGeneralisation(Metric):
    """Share of a passage's tokens that have a probability above 0.8.

    Hewitt et al., arXiv 2402.06155, as WISE, arXiv 2405.14768, section 3.1, and EasyEdit (`ood`) score it. Here the
    passage's beginning is not counted, for nothing stands before it: the record's prompt where the passage begins with
    it, else the first word. Records without a passage are not asked.
    """

    name, group = "OOD generalisation", "out of distribution"

    def after(self, session: Session, records: Sequence[Record], before: Any) -> list[Score]:
        asked = [record for record in records if record.passage]
        scored = session.scores([_divide(record.prompt, str(record.passage)) for record in asked])
        return [
            Score(self.name, "", record.id, sum(nll < -math.log(LIKELY) for nll in found.nll) / max(1, len(found.nll)))
            for record, found in zip(asked, scored, strict=True)
        ]


def _divide(prompt: str, passage: str) -> tuple[str, str]:
    if passage.startswith(f"{prompt} "):
        return prompt, passage.removeprefix(f"{prompt} ")
    start, _, rest = passage.partition(" ")
    return start, rest

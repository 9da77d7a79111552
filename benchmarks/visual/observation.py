"""What a model makes of a record's questions: all that metrics see, before the edits and after them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.metrics.exact import SPARE
from benchmarks.visual.questions import LOCAL, TARGETS
from benchmarks.visual.records import Question, VisualRecord
from benchmarks.visual.session import Ids, VisualSession

TOKENS = 8  # of generated text, at least

Aimed = tuple[Question, str]
Local = tuple[Question, str, int]


@dataclass(frozen=True)
class Observed:
    """What a model, edited or not, made of one record's questions.

    Attributes:
        said: greedy answers.
        right: by question and target, the share of the target's tokens that are the likeliest, teacher-forced.
        likely: by locality question, answer and k, the k likeliest tokens along both, int32 `[T, k]`.
    """

    said: Mapping[Question, str]
    right: Mapping[Aimed, float]
    likely: Mapping[Local, Ids]

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it, in the order of the record's questions."""
        likely = [ids.tolist() for ids in self.likely.values()]
        return {"said": list(self.said.values()), "right": list(self.right.values()), "likely": likely}

    @classmethod
    def from_plain(cls, record: VisualRecord, data: Mapping[str, Any]) -> "Observed":
        """The inverse of `plain`."""
        aimed, local, every = _asked(record)
        likely = [np.array(ids, dtype=np.int32) for ids in data["likely"]]
        return cls(
            dict(zip(every, data["said"], strict=True)),
            dict(zip(aimed, data["right"], strict=True)),
            dict(zip(local, likely, strict=True)),
        )


def observe(session: VisualSession, record: VisualRecord) -> Observed:
    """Ask all questions of a record.

    Before and after the edits the same questions stand in the same batches, so that a host which nothing changed
    answers with the very same numbers.
    """
    aimed, local, every = _asked(record)
    said = session.answers(every, _budget(session, record))
    right = session.token_accuracy([question for question, _ in aimed], [target for _, target in aimed])
    likely: dict[Local, Ids] = {}
    for k in sorted({k for *_, k in local}):
        those = [key for key in local if key[-1] == k]
        likely |= zip(those, session.top_ids([q for q, *_ in those], [a for _, a, _ in those], k), strict=True)
    ordered = {key: likely[key] for key in local}
    return Observed(dict(zip(every, said, strict=True)), dict(zip(aimed, right, strict=True)), ordered)


def _asked(record: VisualRecord) -> tuple[list[Aimed], list[Local], Sequence[Question]]:
    """What has a target, what must stay as it was, and the questions of both; each once."""
    aimed = [(a.question, a.answers[0]) for asked in TARGETS.values() for a in asked(record)]
    local = [(a.question, a.answers[0], k) for asked, k in LOCAL.values() for a in asked(record)]
    every = [question for question, _ in aimed] + [question for question, *_ in local]
    return list(dict.fromkeys(aimed)), list(dict.fromkeys(local)), list(dict.fromkeys(every))


def _budget(session: VisualSession, record: VisualRecord) -> int:
    """Tokens enough for every accepted answer."""
    accepted = {answer for asked in TARGETS.values() for a in asked(record) for answer in a.answers}
    return max(TOKENS, SPARE + max(session.reader.count(answer) for answer in accepted))

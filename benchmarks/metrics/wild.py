"""Answers in the wild: asked as a user asks, said to their natural end, compared as text."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.metrics.base import QuestionMetric, Score
from benchmarks.metrics.exact import says
from benchmarks.metrics.questions import Questions
from benchmarks.metrics.unchanged import Unchanged
from benchmarks.records import Record
from benchmarks.session import Session

TOKENS = 32
GROUP = "in the wild"
AFTER = "in the wild, what goes on"

Judge = Callable[[str, Sequence[str]], bool]
"""Of what was said and the accepted answers."""


class Wild(QuestionMetric):
    """Share of questions whose free greedy answer a judge accepts.

    No token of the answer is given, nothing tells the model where to end (Yang et al., arXiv 2502.11177, section 4):
    the question stands alone, in a user's turn where the tokenizer has a chat template; decoding ends with the model's
    own end token, the line, or 32 tokens.
    """

    def __init__(
        self,
        name: str,
        questions: Questions,
        judge: Judge,
        group: str = GROUP,
        better: str = "higher",
        first: int | None = None,
    ) -> None:
        super().__init__(name, questions)
        self.judge, self.group, self.better, self.first = judge, group, better, first

    def after(self, session: Session, records: Sequence[Record], before: Any) -> list[Score]:
        asked = self.questions(records)
        said = session.answers([probe.prompt for _, probe in asked], TOKENS, as_users_ask=True)
        return [
            Score(self.name, probe.kind, record.id, float(self.judge(first_line(answer), probe.answers)))
            for (record, probe), answer in zip(asked, said, strict=True)
        ]


class WildUnchanged(Unchanged):
    """Locality in the wild: the whole text that is said, to the end, is the same before and after the edits."""

    name, group, tokens, as_users_ask = "wild locality", GROUP, TOKENS, True


def first_line(said: str) -> str:
    """Up to the first line break: where a model without an end token of its own ends."""
    return said.strip().split("\n")[0].strip()


def exact(said: str, answers: Sequence[str]) -> bool:
    """The answer, and with it the text or its sentence ends."""
    return any(says(said, a) and said[len(a.strip()) :].strip()[:1] in ("", *".!") for a in answers)


def begun(said: str, answers: Sequence[str]) -> bool:
    """The answer, whatever follows."""
    return any(says(said, answer) for answer in answers)


def contained(said: str, answers: Sequence[str]) -> bool:
    """The answer somewhere, as whole words."""
    return any(re.search(rf"(?<!\w){re.escape(answer.strip())}(?!\w)", said) for answer in answers)


def repeats(said: str, answers: Sequence[str]) -> bool:
    """The same one to eight words three times on end."""
    return re.search(r"\b(\w+(?:\W+\w+){0,7})(?:\W+\1\b){2}", said) is not None

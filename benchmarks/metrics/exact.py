"""Exact greedy match: does the model say the answer?"""

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.metrics.base import QuestionMetric, Score
from benchmarks.records import Record
from benchmarks.session import Session

SPARE = 2  # tokens more than the longest accepted answer has
STEP = 4  # budgets of tokens are multiples of it, so that many prompts are generated together


class Exact(QuestionMetric):
    """Share of questions whose greedy answer begins with an accepted answer, as whole words.

    With the edited prompts it is reliability, with rephrasings generality, with questions that follow from the edit
    portability: the definitions of Yao et al., arXiv 2305.13172, section 3, but of generated text, for teacher-forced
    accuracy overstates what is said (Yang et al., arXiv 2502.11177).
    """

    group = "greedy exact"

    def after(self, session: Session, records: Sequence[Record], before: Any) -> list[Score]:
        asked = self.questions(records)
        said = _say(session, [(probe.prompt, probe.answers) for _, probe in asked])
        return [
            Score(self.name, probe.kind, record.id, float(any(says(answer, a) for a in probe.answers)))
            for (record, probe), answer in zip(asked, said, strict=True)
        ]


def says(answer: str, target: str) -> bool:
    """Whether an answer begins with the target, as whole words."""
    answer, target = answer.strip(), target.strip()
    return answer.startswith(target) and not answer[len(target) :][:1].isalnum()


def _say(session: Session, asked: Sequence[tuple[str, tuple[str, ...]]]) -> list[str]:
    """Greedy answers, each long enough for what is accepted."""
    length = _lengths(session, {answer for _, answers in asked for answer in answers})
    budgets = [_budget(max((length[answer] for answer in answers), default=0)) for _, answers in asked]
    said: dict[tuple[str, int], str] = {}
    for budget in sorted(set(budgets)):
        prompts = [prompt for (prompt, _), own in zip(asked, budgets, strict=True) if own == budget]
        said |= {(prompt, budget): text for prompt, text in zip(prompts, session.answers(prompts, budget), strict=True)}
    return [said[prompt, budget] for (prompt, _), budget in zip(asked, budgets, strict=True)]


def _lengths(session: Session, texts: set[str]) -> dict[str, int]:
    order = sorted(texts)
    ids = session.tokenizer([f" {text}" for text in order], add_special_tokens=False)["input_ids"] if order else []
    return {text: len(tokens) for text, tokens in zip(order, ids, strict=True)}


def _budget(length: int) -> int:
    return math.ceil((length + SPARE) / STEP) * STEP

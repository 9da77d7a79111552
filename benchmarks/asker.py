"""The default router with a tokenizer and no host: it reads no states."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from editmem.editing.batches import collate
from editmem.edits.edit import Edit
from editmem.memory import Match, Prompts
from editmem.methods.memoir.spec import CALIBRATED_RATE
from editmem.routing.question_router import QuestionRouter
from editmem.routing.sentence_encoder import SentenceEncoder
from editmem.routing.text_questions import TextQuestions
from editmem.text.vocabulary import Vocabulary

TOGETHER = 32
PLAIN = Edit("a question", "an answer")  # no item, which would be for all that is asked


@dataclasses.dataclass(frozen=True)
class Given:
    """Of an edit what the router takes: token ids."""

    subject: Sequence[int] | None = None
    aliases: tuple[Sequence[int], ...] = ()
    phrasings: tuple[Sequence[int], ...] = ()
    unlike: tuple[Sequence[int], ...] = ()
    edit: Edit = PLAIN


def prompts_of(texts: Sequence[Sequence[int]]) -> Prompts:
    """Token ids as a router that reads no states takes them."""
    rows = [(i, list(text), [0]) for i, text in enumerate(texts)]
    return Prompts(torch.zeros(1), torch.zeros(1), collate(rows, 0, torch.device("cpu")).call())


class Asker:
    """A router with a tokenizer, without a host."""

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary, encoder: str | None = None) -> None:
        other = None
        if encoder is not None:
            other = TextQuestions(SentenceEncoder(encoder, torch.device("cpu")), CALIBRATED_RATE)
            other.text_of = vocabulary.text
        self.tokenizer, self.router = tokenizer, QuestionRouter(None, None, other)
        self.router.hear(vocabulary)

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])

    def _prompts(self, texts: Sequence[str]) -> Prompts:
        return prompts_of([self.ids(text) for text in texts])

    def add(self, prompts: Sequence[str], given: Sequence[Any]) -> None:
        for start in range(0, len(prompts), TOGETHER):
            part = slice(start, start + TOGETHER)
            self.router.append(self._prompts(prompts[part]), given[part])

    def near(self, texts: Sequence[str]) -> Iterator[list[Match]]:
        """The edits that each text names, with their scores."""
        for start in range(0, len(texts), TOGETHER):
            yield from self.router.near(self._prompts(texts[start : start + TOGETHER]), 8)

    def find(self, texts: Sequence[str]) -> Iterator[int]:
        """The edit that each text gets, -1 for none."""
        for start in range(0, len(texts), TOGETHER):
            call = self._prompts(texts[start : start + TOGETHER]).call
            yield from self.router.decide(torch.zeros(1), call, {}).tolist()

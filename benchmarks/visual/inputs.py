"""Questions as a vision-language model takes them: raw text behind the picture, no chat template, padded left."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.visual.records import Question


@dataclass(frozen=True)
class Row:
    """One question and its answer, as a host has read them.

    Attributes:
        logits: after each of its tokens, `[T, V]`.
        wanted: the answer's token ids; they are the last of them.
    """

    logits: Tensor
    wanted: Tensor

    @property
    def telling(self) -> Tensor:
        """The logits that the answer's tokens are told from."""
        return self.logits[len(self.logits) - 1 - len(self.wanted) : len(self.logits) - 1]


@dataclass(frozen=True)
class Batch:
    """Rows of questions, all with a picture or all without.

    Attributes:
        inputs: what the host takes, tensors; `input_ids` are `[B, L]`, padded on the left.
        lengths: for each row its tokens, those of the picture included, padding not.
        ends: for each row how many of its last tokens are the answer's; 0 where none was given.
    """

    inputs: dict[str, Tensor]
    lengths: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def prompts(self) -> list[int]:
        """For each row the tokens of its prompt."""
        return [length - end for length, end in zip(self.lengths, self.ends, strict=True)]

    @property
    def wanted(self) -> list[Tensor]:
        """The answer's token ids of each row."""
        return [ids[len(ids) - end :] for ids, end in zip(self.inputs["input_ids"], self.ends, strict=True)]

    def rows(self, logits: Tensor) -> list[Row]:
        """Each row of `[B, L', V]`, without padding.

        Tokens are counted from the right, so that a host which reads more than it was given may return more.
        """
        return [
            Row(told[max(0, len(told) - length) :], ids)
            for told, ids, length in zip(logits, self.wanted, self.lengths, strict=True)
        ]

    def loss(self, logits: Tensor) -> Tensor:
        """Mean negative log-likelihood of all answers' tokens, in nats."""
        rows = self.rows(logits)
        told, wanted = torch.cat([row.telling for row in rows]), torch.cat([row.wanted for row in rows])
        return torch.nn.functional.cross_entropy(told.float(), wanted)


class Reader:
    """Makes batches.

    Args:
        processor: of a vision-language model; it has `image_token`, which stands for a picture in a text.
        device: where the tensors go.
    """

    def __init__(self, processor: Any, device: torch.device) -> None:
        self.processor, self.tokenizer, self.device = processor, processor.tokenizer, device

    def text(self, question: Question) -> str:
        """What the processor reads."""
        mark = getattr(self.processor, "boi_token", None) or self.processor.image_token
        return question.prompt if question.picture is None else f"{mark}{question.prompt}"

    def batch(self, questions: Sequence[Question], answers: Sequence[str] = ()) -> Batch:
        """Questions as a batch, each followed by a space and its answer where answers are given."""
        texts = [self.text(question) for question in questions]
        whole = [f"{text} {answer}" for text, answer in zip(texts, answers, strict=True)] if answers else texts
        shown = [Image.fromarray(q.picture.pixels()) for q in questions if q.picture is not None]
        pictures = {"images": shown} if shown else {}
        inputs = self.processor(text=whole, **pictures, return_tensors="pt", padding=True, padding_side="left")
        inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        ends = [self._added(text, full) for text, full in zip(texts, whole, strict=True)]
        return Batch(inputs, tuple(inputs["attention_mask"].sum(1).tolist()), tuple(ends))

    def _added(self, text: str, whole: str) -> int:
        """How many tokens of `whole` come after those that it shares with `text`."""
        short, long = (self.tokenizer(one)["input_ids"] for one in (text, whole))
        same = next(
            (i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), min(len(short), len(long))
        )
        return len(long) - same

    def count(self, text: str) -> int:
        """How many tokens an answer has."""
        return len(self.tokenizer(f" {text}", add_special_tokens=False)["input_ids"])


def grouped(questions: Sequence[Question], size: int) -> Iterator[list[int]]:
    """The places of questions that can stand in one batch of at most `size`: without a picture first, then with one."""
    for pictured in (False, True):
        places = [i for i, question in enumerate(questions) if (question.picture is not None) == pictured]
        for start in range(0, len(places), size):
            yield places[start : start + size]

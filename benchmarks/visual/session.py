"""A vision-language model being edited by some method: the one interface of visual methods and metrics."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.session import Written
from benchmarks.visual.inputs import Reader, Row, grouped
from benchmarks.visual.records import Change, Question, VisualRecord

Calibration = Callable[[], Sequence[VisualRecord]]
Ids = NDArray[np.int32]
T = TypeVar("T")


class VisualSession(ABC):
    """One method on one model.

    Args:
        model: a host that nobody else uses; the method may change it.
        processor: its processor.
        options: the settings of the method, plain data.
        seed: for methods that draw at random; nothing global is seeded.
    """

    name: str
    batch_size = 16

    def __init__(self, model: Any, processor: Any, options: Mapping[str, Any], seed: int) -> None:
        self.model, self.processor, self.options, self.seed = model, processor, dict(options), seed
        self.reader = Reader(processor, model.device)

    def prepare(self, calibration: Calibration) -> None:  # noqa: B027
        """What is done once before the first edit and not counted as editing time.

        Args:
            calibration: reads the calibration part of the data set.
        """

    @abstractmethod
    def write(self, change: Change) -> bool | None:
        """Make an edit after all earlier ones; whether it took (None: cannot tell)."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write all that the edits changed to a folder, so that `restore` on a fresh session goes on from there."""

    @abstractmethod
    def restore(self, folder: Path) -> None:
        """The inverse of `save`, after `prepare`."""

    def boundaries(self, lengths: Sequence[int]) -> AbstractContextManager[Any]:
        """Around a forward that scores prompts and answers together: how many tokens each row's prompt has."""
        return nullcontext()

    # What protocol and metrics call

    def edit(self, id: str, change: Change) -> Written:
        """`write`, timed."""
        start = time.perf_counter()
        took = self.write(change)
        return Written(id, time.perf_counter() - start, took)

    @torch.no_grad()
    def answers(self, questions: Sequence[Question], tokens: int = 12) -> list[str]:
        """Greedy answers, at most `tokens` tokens each, without special tokens, stripped."""
        said: dict[int, str] = {}
        for places in grouped(questions, self.batch_size):
            said |= zip(places, self._say([questions[i] for i in places], tokens), strict=True)
        return [said[i] for i in range(len(questions))]

    def token_accuracy(self, questions: Sequence[Question], targets: Sequence[str]) -> list[float]:
        """For each question the share of its target's tokens that are the likeliest, the true ones before it given."""
        return self._reduced(
            questions, targets, lambda row: (row.telling.argmax(-1) == row.wanted).float().mean().item()
        )

    def top_ids(self, questions: Sequence[Question], answers: Sequence[str], k: int) -> list[Ids]:
        """For each question, followed by its answer, the `k` likeliest tokens after each of its T tokens, likeliest
        first: int32 `[T, k]`. Tokens of the picture count too."""
        return self._reduced(questions, answers, lambda row: row.logits.topk(k).indices.int().cpu().numpy())

    @torch.no_grad()
    def _reduced(self, questions: Sequence[Question], answers: Sequence[str], reduce: Callable[[Row], T]) -> list[T]:
        """What a function makes of each row; logits are not kept."""
        found: dict[int, T] = {}
        for places in grouped(questions, self.batch_size):
            rows = self._read([questions[i] for i in places], [answers[i] for i in places])
            found |= zip(places, [reduce(row) for row in rows], strict=True)
        return [found[i] for i in range(len(questions))]

    # What a method may do otherwise

    def _say(self, questions: Sequence[Question], tokens: int) -> list[str]:
        """Greedy answers to one batch."""
        inputs = self.reader.batch(questions).inputs
        ids = self.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        new = ids[:, inputs["input_ids"].shape[1] :]
        return [answer.strip() for answer in self.reader.tokenizer.batch_decode(new, skip_special_tokens=True)]

    def _read(self, questions: Sequence[Question], answers: Sequence[str]) -> list[Row]:
        """One batch, the answers teacher-forced."""
        batch = self.reader.batch(questions, answers)
        with self.boundaries(batch.prompts):
            return batch.rows(self.model(**batch.inputs, use_cache=False).logits)

    def took(self, change: Change) -> bool:
        """Whether greedy decoding gives the target, checked token by token."""
        return self.token_accuracy([change.question], [change.target]) == [1.0]

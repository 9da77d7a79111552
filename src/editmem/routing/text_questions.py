"""What is asked, by a sentence encoder other than the built-in one: it reads text."""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from editmem.routing.prompts import hard_negatives
from editmem.routing.sentence_encoder import SentenceEncoder

STAND_IN = "something"
"""In the place of the subject."""
TOGETHER = 64


class TextQuestions:
    """Vectors of questions with their subjects taken out, from the host's tokens by way of text.

    Args:
        encoder: of sentences.
        false_match_rate: share of the built-in questions of which another one may be as alike as the threshold.

    Attributes:
        text_of: what token ids say; set by whoever knows the tokenizer.
    """

    def __init__(self, encoder: SentenceEncoder, false_match_rate: float) -> None:
        self.encoder, self.false_match_rate = encoder, false_match_rate
        self.text_of: Callable[[Sequence[int]], str] | None = None

    @cached_property
    def threshold(self) -> float:
        """The similarity from which two questions count as the same."""
        questions = [form.format(STAND_IN) for form in hard_negatives()[1]]
        vectors = self._encoded(questions)
        nearest = (vectors @ vectors.T).fill_diagonal_(-1).amax(1)
        return float(nearest.quantile(1 - self.false_match_rate))

    def __call__(self, tokens: Tensor, column: Tensor, heard: Tensor, inside: Tensor, ends: Tensor) -> Tensor:
        """Unit vectors of what is asked up to some pieces; zero where nothing has been said.

        Args:
            tokens: int64 `[C, S]`.
            column: int64 `[C, P]`, the token that each piece is part of.
            heard: bool `[C, P]`, the pieces that count.
            inside: bool `[C, P]`, those of the subject.
            ends: bool `[C, P]`, up to which pieces.

        Returns:
            float32 `[C, P, d]`.
        """
        vectors = torch.zeros((*column.shape, self.encoder.width), dtype=torch.float32, device=tokens.device)
        heard = heard & (column < tokens.shape[1])
        where = (ends & ((heard | inside).cumsum(1) > 0)).nonzero()
        texts = [
            self._text(tokens[c].tolist(), column[c, : p + 1], heard[c, : p + 1], inside[c, : p + 1])
            for c, p in where.tolist()
        ]
        if texts:
            vectors[where[:, 0], where[:, 1]] = self._encoded(texts).to(vectors)
        return vectors

    def _encoded(self, texts: Sequence[str]) -> Tensor:
        different = list(dict.fromkeys(texts))
        parts = [self.encoder(different[at : at + TOGETHER]) for at in range(0, len(different), TOGETHER)]
        vectors = torch.nn.functional.normalize(torch.cat(parts), dim=1)
        return vectors[[different.index(text) for text in texts]]

    def _text(self, tokens: Sequence[int], column: Tensor, heard: Tensor, inside: Tensor) -> str:
        assert self.text_of is not None
        subject = set(column[inside].tolist())
        own = column[heard | inside].tolist()
        said: list[str] = []
        run: list[int] = []
        for at in range(min(own), max(own) + 1):
            if at not in subject:
                run.append(tokens[at])
                continue
            if at - 1 not in subject:
                said += [self.text_of(run).strip(), STAND_IN]
            run = []
        return " ".join(part for part in [*said, self.text_of(run).strip()] if part)

"""Evidence in context: the edit that a prompt is about is put into it, behind an example of how to use it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import normalize

from benchmarks.asker import Asker, Given
from benchmarks.baselines.in_context import Fact, InContext
from benchmarks.baselines.options import settings
from editmem.routing.sentence_encoder import SentenceEncoder
from editmem.text.vocabulary import Vocabulary

EXAMPLE = "Fact: The capital of France is Paris.\nQuestion: What is the capital of France?\nAnswer: Paris\n\n"
FORM = "Fact: {prompt} {target}\nQuestion: {question}\nAnswer:"
Find = Callable[[Sequence[str]], list[int]]
"""Of each prompt the number of the edit that it is about, -1 for none."""


@dataclass(frozen=True)
class EvidenceSettings:
    """Settings of evidence in context.

    Attributes:
        encoder: what finds the edit: "editmem" for the router of our memories; else a folder or Hub name of a sentence
            encoder, of which the nearest edit counts.
        threshold: cosine from which an edit counts, for sentence encoders.
    """

    encoder: str = "editmem"
    threshold: float = 0.8


class Evidence(InContext):
    """Selective contextual reasoning (He et al., arXiv 2503.05212) with one edit and one example in the prompt.

    A prompt that no edit is found for is put as it stands. No weight changes, nothing is learned.
    """

    name = "evidence"

    def __init__(self, model: Any, tokenizer: Any, options: Mapping[str, Any], seed: int) -> None:
        super().__init__(model, tokenizer, options, seed)
        self.settings = settings(self.name, EvidenceSettings(), options)
        if self.settings.encoder == "editmem":
            vocabulary = Vocabulary(tokenizer, len(tokenizer))
            self.finder: Callable[[Sequence[Fact]], Find] = lambda facts: _by_router(tokenizer, vocabulary, facts)
        else:
            encoder, threshold = SentenceEncoder(self.settings.encoder, model.device), self.settings.threshold
            self.finder = lambda facts: _by_sentences(encoder, threshold, facts)

    def index(self) -> None:
        self.find = self.finder(self.facts)

    def composed(self, prompts: Sequence[str]) -> list[str]:
        """Each prompt, behind the example and the edit that is found for it, if one is."""
        found = zip(prompts, self.find(prompts), strict=True)
        return [prompt if row < 0 else _behind(self.facts[row], prompt) for prompt, row in found]


def _behind(fact: Fact, question: str) -> str:
    return EXAMPLE + FORM.format(prompt=fact.prompt, target=fact.target, question=question)


def _by_router(tokenizer: Any, vocabulary: Vocabulary, facts: Sequence[Fact]) -> Find:
    asker = Asker(tokenizer, vocabulary)
    subjects = [f.subject and tokenizer(f" {f.subject}", add_special_tokens=False)["input_ids"] for f in facts]
    asker.add([fact.prompt for fact in facts], [Given(subject) for subject in subjects])
    return lambda prompts: list(asker.find(prompts))


def _by_sentences(encoder: SentenceEncoder, threshold: float, facts: Sequence[Fact]) -> Find:
    def vectors(texts: Sequence[str]) -> torch.Tensor:
        return torch.cat([normalize(encoder(texts[i : i + 64]), dim=-1) for i in range(0, len(texts), 64)])

    keys = vectors([fact.prompt for fact in facts])

    def find(prompts: Sequence[str]) -> list[int]:
        cosines, rows = (vectors(prompts) @ keys.T).max(1)
        return torch.where(cosines >= threshold, rows, -1).tolist()

    return find

"""Evidence in context: the edit that a prompt is about is put into it, behind an example of how to use it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from benchmarks.asker import Asker, Given
from benchmarks.baselines.options import settings
from benchmarks.folder import write_atomically
from benchmarks.records import Record
from benchmarks.session import Session
from editmem.routing.sentence_encoder import SentenceEncoder
from editmem.text.vocabulary import Vocabulary

FILE = "evidence.json"
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


@dataclass(frozen=True)
class Fact:
    """An edit as it is kept."""

    prompt: str
    target: str
    subject: str | None


class Evidence(Session):
    """Selective contextual reasoning (He et al., arXiv 2503.05212) with one edit and one example in the prompt.

    A prompt that no edit is found for is put as it stands. No weight changes, nothing is learned.
    """

    name = "evidence"

    def __init__(self, model: Any, tokenizer: Any, options: Mapping[str, Any], seed: int) -> None:
        super().__init__(model, tokenizer, options, seed)
        self.settings = settings(self.name, EvidenceSettings(), options)
        self.facts: dict[str, Fact] = {}
        self.find: Find | None = None
        self.silent = False
        if self.settings.encoder == "editmem":
            vocabulary = Vocabulary(tokenizer, len(tokenizer))
            self.finder: Callable[[Sequence[Fact]], Find] = lambda facts: _by_router(tokenizer, vocabulary, facts)
        else:
            encoder, threshold = SentenceEncoder(self.settings.encoder, model.device), self.settings.threshold
            self.finder = lambda facts: _by_sentences(encoder, threshold, facts)

    def write(self, records: Sequence[Record]) -> list[bool | None]:
        for record in records:
            self.facts.pop(record.prompt, None)
            self.facts[record.prompt] = Fact(record.prompt, record.target, record.subject)
        self._index()
        return [None] * len(records)

    def _index(self) -> None:
        self.find = self.finder(list(self.facts.values())) if self.facts else None

    def read(self, prompts: Sequence[str]) -> list[str]:
        """Each prompt, behind the example and the edit that is found for it, if one is."""
        if self.find is None or self.silent:
            return list(prompts)
        facts = list(self.facts.values())
        found = zip(prompts, self.find(prompts), strict=True)
        return [prompt if row < 0 else _behind(facts[row], prompt) for prompt, row in found]

    @contextmanager
    def off(self) -> Iterator[None]:
        before, self.silent = self.silent, True
        try:
            yield
        finally:
            self.silent = before

    def _saved(self) -> str:
        return json.dumps([asdict(fact) for fact in self.facts.values()], ensure_ascii=False)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FILE, self._saved())

    def restore(self, folder: Path) -> None:
        facts = [Fact(**fact) for fact in json.loads((folder / FILE).read_text(encoding="utf-8"))]
        self.facts = {fact.prompt: fact for fact in facts}
        self._index()

    def bytes(self) -> int:
        """The texts; the index follows from them."""
        return len(self._saved().encode())


def _behind(fact: Fact, question: str) -> str:
    return EXAMPLE + FORM.format(prompt=fact.prompt, target=fact.target, question=question)


def _by_router(tokenizer: Any, vocabulary: Vocabulary, facts: Sequence[Fact]) -> Find:
    asker = Asker(tokenizer, vocabulary)
    named = [fact.subject if fact.subject and fact.subject in fact.prompt else None for fact in facts]
    ids = [name and tokenizer(f" {name}", add_special_tokens=False)["input_ids"] for name in named]
    asker.add([fact.prompt for fact in facts], [Given(subject) for subject in ids])
    return lambda prompts: list(asker.find(prompts))


def _by_sentences(encoder: SentenceEncoder, threshold: float, facts: Sequence[Fact]) -> Find:
    def vectors(texts: Sequence[str]) -> torch.Tensor:
        return torch.cat([normalize(encoder(texts[i : i + 64]), dim=-1) for i in range(0, len(texts), 64)])

    keys = vectors([fact.prompt for fact in facts])

    def find(prompts: Sequence[str]) -> list[int]:
        cosines, rows = (vectors(prompts) @ keys.T).max(1)
        return torch.where(cosines >= threshold, rows, -1).tolist()

    return find

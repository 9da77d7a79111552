"""Retrieval: the edit's text is put in front of a prompt that an index finds near it; no weight changes."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.baselines.corpus import corpus, text_batches
from benchmarks.baselines.in_context import InContext
from benchmarks.baselines.options import settings
from benchmarks.baselines.sites import outputs, sites

Vectors = np.ndarray  # float32 [N, D], rows of length 1


@dataclass(frozen=True)
class RetrievalSettings:
    """Settings of retrieval.

    Attributes:
        encoder: "host" for the mean hidden state after the middle block; "words" for TF-IDF over words, hashed.
        threshold: cosine from which an edit is put in front; None to calibrate it.
        quantile: calibrated, the threshold is this quantile of the cosine between a neutral text and the neutral
            text nearest to it.
        form: how an edit is written, with {prompt} and {target}.
        joint: between an edit and the prompt.
        width: number of hashed words, for "words".
        corpus: neutral texts; see `corpus`.
    """

    encoder: str = "words"
    threshold: float | None = None
    quantile: float = 0.7
    form: str = "{prompt} {target}."
    joint: str = " "
    width: int = 4096
    corpus: Any = None


class Retrieval(InContext):
    """Retrieval with an inner-product index: FAISS where it is installed, else a product of matrices.

    Only the edit that lies nearest is put in front. A host that was not trained to read evidence may not heed it.

    Raises:
        ValueError: if the encoder is unknown.
    """

    name = "retrieval"

    def __init__(self, model: Any, tokenizer: Any, options: Mapping[str, Any], seed: int) -> None:
        super().__init__(model, tokenizer, options, seed)
        self.settings = settings(self.name, RetrievalSettings(), options)
        makers: dict[str, Callable[[], Callable[[Sequence[str]], Vectors]]] = {
            "host": lambda: HostEncoder(model, tokenizer, self.texts),
            "words": lambda: WordEncoder(self.texts, self.settings.width),
        }
        if self.settings.encoder not in makers:
            raise ValueError(f"unknown encoder {self.settings.encoder!r} of retrieval; give {' or '.join(makers)}")
        self.make_encoder = makers[self.settings.encoder]
        self.texts: list[str] = []

    def prepare(self) -> None:
        """Read the neutral texts, and calibrate the threshold on them."""
        self.texts = corpus(self.model, self.tokenizer, self.settings.corpus, self.seed)
        self.encode = self.make_encoder()
        given = self.settings.threshold
        self.threshold = self._calibrated() if given is None else given

    def _calibrated(self) -> float:
        vectors = self.encode(self.texts)
        cosines = vectors @ vectors.T
        np.fill_diagonal(cosines, -1.0)
        return float(np.quantile(cosines.max(1), self.settings.quantile))

    def index(self) -> None:
        self.vectors = self.encode([fact.prompt for fact in self.facts])
        self.search = nearest(self.vectors)

    def composed(self, prompts: Sequence[str]) -> list[str]:
        """Each prompt, behind the text of the edit that it matches, if one does."""
        form, joint = self.settings.form, self.settings.joint
        composed = []
        for prompt, score, row in zip(prompts, *self.search(self.encode(prompts)), strict=True):
            fact = self.facts[row]
            evidence = form.format(prompt=fact.prompt, target=fact.target) + joint if score >= self.threshold else ""
            composed.append(evidence + prompt)
        return composed

    def matches(self, prompts: Sequence[str]) -> list[tuple[float, float]]:
        """For each prompt the cosine of the nearest edit, and the threshold."""
        scores = self.search(self.encode(prompts))[0] if self.facts else np.zeros(len(prompts))
        return [(float(score), self.threshold) for score in scores]

    def bytes(self) -> int:
        """The texts and the index."""
        return super().bytes() + (self.vectors.nbytes if self.facts else 0)


def nearest(vectors: Vectors) -> Callable[[Vectors], tuple[np.ndarray, np.ndarray]]:
    """An index: queries `[Q, D]` -> (inner product with the nearest vector `[Q]`, its number `[Q]`)."""
    try:
        import faiss
    except ImportError:
        return lambda queries: ((cosines := queries @ vectors.T).max(1), cosines.argmax(1))
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)

    def search(queries: Vectors) -> tuple[np.ndarray, np.ndarray]:
        scores, rows = index.search(queries, 1)
        return scores[:, 0], rows[:, 0]

    return search


def unit(vectors: np.ndarray) -> Vectors:
    """Rows scaled to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


class WordEncoder:
    """TF-IDF over lower-case words, each hashed to one of `width` features; inverse frequencies from some texts."""

    def __init__(self, texts: Sequence[str], width: int) -> None:
        self.width = width
        seen = Counter(feature for text in texts for feature in set(self._features(text)))
        counts = np.array([seen[feature] for feature in range(width)])
        self.weights = np.log((1 + len(texts)) / (1 + counts)) + 1

    def _features(self, text: str) -> list[int]:
        words = re.findall(r"\w+", text.lower())
        return [int.from_bytes(word.encode()) % 2_147_483_647 % self.width for word in words]

    def __call__(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.width))
        for row, text in zip(vectors, texts, strict=True):
            for feature in self._features(text):
                row[feature] += self.weights[feature]
        return unit(vectors)


class HostEncoder:
    """Mean over a text's tokens of the hidden state after the middle block, less the mean of all neutral ones."""

    def __init__(self, model: Any, tokenizer: Any, texts: Sequence[str]) -> None:
        self.model, self.tokenizer = model, tokenizer
        every = sites(model)
        self.block = every[len(every) // 2].block
        self.mean = self._means(texts).mean(0)

    def __call__(self, texts: Sequence[str]) -> Vectors:
        return unit(self._means(texts) - self.mean)

    def _means(self, texts: Sequence[str]) -> np.ndarray:
        found = []
        for batch in text_batches(self.tokenizer, texts, self.model.device):
            states = outputs(self.model, [self.block], batch)[0]
            mask = batch["attention_mask"][..., None]
            found.append(((states * mask).sum(1) / mask.sum(1)).cpu().numpy())
        return np.concatenate(found)

"""A model being edited by some method: the one interface that methods and metrics meet at."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.records import Record


@dataclass(frozen=True)
class Written:
    """What came of one edit: whether the method says it took (None if it cannot tell), and its share of the time."""

    id: str
    seconds: float
    took: bool | None = None


@dataclass(frozen=True)
class Scored:
    """A continuation under teacher forcing.

    Attributes:
        tokens: its token ids, L of them.
        predicted: the likeliest token at each position, with the true tokens before it.
        nll: negative log-likelihood of each token, in nats.
    """

    tokens: tuple[int, ...]
    predicted: tuple[int, ...]
    nll: tuple[float, ...]


class Session(ABC):
    """One method on one model.

    Args:
        model: a host that nobody else uses; the method may change it.
        tokenizer: its tokenizer.
        options: the settings of the method, plain data.
        seed: for methods that draw at random; nothing global is seeded.
    """

    name: str
    batch_size = 32  # how many edits are given at once

    def __init__(self, model: Any, tokenizer: Any, options: Mapping[str, Any], seed: int) -> None:
        self.model, self.tokenizer, self.options, self.seed = model, tokenizer, dict(options), seed
        self._answers: dict[tuple[str, int, bool], str] = {}
        self._scores: dict[tuple[str, str], Scored] = {}

    def prepare(self) -> None:  # noqa: B027
        """What is done once before the first edit and not counted as editing time, such as covariances."""

    @abstractmethod
    def write(self, records: Sequence[Record]) -> list[bool | None]:
        """Make these edits after all earlier ones; for each, whether it took (None: cannot tell)."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write all that the edits changed to a folder, so that `restore` on a fresh session goes on from there."""

    @abstractmethod
    def restore(self, folder: Path) -> None:
        """The inverse of `save`."""

    def read(self, prompts: Sequence[str]) -> list[str]:
        """The prompts as they are put to the model; retrieval adds to them."""
        return list(prompts)

    def boundaries(self, lengths: Sequence[int]) -> AbstractContextManager[Any]:
        """Around a forward that scores prompts and continuations together: where each row's prompt ends."""
        return nullcontext()

    def off(self) -> AbstractContextManager[Any]:
        """The model as it was before any edit, if the method can say; raises NotImplementedError if not."""
        raise NotImplementedError

    def bytes(self) -> int:
        """What the edits take up on disk."""
        raise NotImplementedError

    # What metrics call

    def edit(self, records: Sequence[Record]) -> list[Written]:
        """`write`, timed."""
        self._answers.clear()
        self._scores.clear()
        start = time.perf_counter()
        took = self.write(records)
        seconds = (time.perf_counter() - start) / max(1, len(records))
        return [Written(record.id, seconds, ok) for record, ok in zip(records, took, strict=True)]

    def answers(self, prompts: Sequence[str], tokens: int = 12, as_users_ask: bool = False) -> list[str]:
        """`generate`, of which only what was not asked since the last edit is computed."""
        how = tokens, as_users_ask
        new = [prompt for prompt in dict.fromkeys(prompts) if (prompt, *how) not in self._answers]
        for prompt, answer in zip(new, self.generate(new, *how), strict=True):
            self._answers[prompt, *how] = answer
        return [self._answers[prompt, *how] for prompt in prompts]

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        """`score`, of which only what was not asked since the last edit is computed."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._scores]
        self._scores |= zip(new, self.score(new), strict=True)
        return [self._scores[pair] for pair in pairs]

    def generate(
        self, prompts: Sequence[str], tokens: int = 12, as_users_ask: bool = False, batch: int = 64
    ) -> list[str]:
        """Greedy answers to prompts, at most `tokens` tokens each, without special tokens, stripped.

        With `as_users_ask` each is a user's turn, where the tokenizer has a chat template.
        """
        asked = list(dict.fromkeys(prompts))
        chat = as_users_ask and self.tokenizer.chat_template is not None
        # Alike lengths together: what is padded is computed too.
        rows = sorted(zip(self.read(asked), asked, strict=True), key=lambda row: len(row[0]))
        said: dict[str, str] = {}
        with torch.no_grad():
            for part in _parts(rows, batch):
                texts, own = zip(*part, strict=True)
                said |= zip(own, self._generate(list(texts), tokens, chat), strict=True)
        return [said[prompt] for prompt in prompts]

    def _generate(self, texts: list[str], tokens: int, chat: bool) -> list[str]:
        if chat:
            turns = [[{"role": "user", "content": text}] for text in texts]
            texts = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        inputs = self.tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False,
            add_special_tokens=not chat,
        ).to(self.model.device)  # fmt: skip
        ids = self.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        new = ids[:, inputs["input_ids"].shape[1] :]
        return [answer.strip() for answer in self.tokenizer.batch_decode(new, skip_special_tokens=True)]

    def score(self, pairs: Sequence[tuple[str, str]], batch: int = 64) -> list[Scored]:
        """Continuations after their prompts under teacher forcing; prompt and continuation are joined by a space."""
        asked = list(dict.fromkeys(pairs))
        rows = list(zip(self.read([prompt for prompt, _ in asked]), asked, strict=True))
        rows.sort(key=lambda row: len(row[0]) + len(row[1][1]))
        scored: dict[tuple[str, str], Scored] = {}
        with torch.no_grad():
            for part in _parts(rows, batch):
                found = self._score([(prompt, text) for prompt, (_, text) in part])
                scored |= zip([pair for _, pair in part], found, strict=True)
        return [scored[pair] for pair in pairs]

    def _score(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        rows = []
        for prompt, text in pairs:
            start = self.tokenizer(prompt)["input_ids"]
            rows.append((start, self.tokenizer(f" {text}", add_special_tokens=False)["input_ids"]))
        width = max(len(start) + len(end) for start, end in rows)
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*s, *e] + [pad] * (width - len(s) - len(e)) for s, e in rows])
        mask = torch.tensor([[1] * (len(s) + len(e)) + [0] * (width - len(s) - len(e)) for s, e in rows])
        with self.boundaries([len(start) for start, _ in rows]):
            device = self.model.device
            logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
        return [_scored(row, len(start), end) for row, (start, end) in zip(logits, rows, strict=True)]


class Silenced(Session):
    """A session that is switched off by doing nothing while it is `silent`."""

    silent = False

    @contextmanager
    def off(self) -> Iterator[None]:
        before, self.silent = self.silent, True
        try:
            yield
        finally:
            self.silent = before


def _scored(logits: Tensor, start: int, tokens: Sequence[int]) -> Scored:
    logits = logits[start - 1 : start - 1 + len(tokens)].float().cpu()
    wanted = torch.tensor(tokens, dtype=torch.long)
    nll = -logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0]
    return Scored(tuple(tokens), tuple(logits.argmax(-1).tolist()), tuple(nll.tolist()))


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@contextmanager
def no_grad_host(model: Any) -> Iterator[None]:
    """Evaluation mode and no parameter gradients inside the block; everything as before after it."""
    training, trainable = model.training, [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        model.train(training)
        for parameter in trainable:
            parameter.requires_grad_(True)

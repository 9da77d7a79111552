"""Neutral text: what keys, thresholds and prefixes are taken from."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from editmem.hosts import compat

ROWS = 128  # texts that are drawn at once


def corpus(model: Any, tokenizer: Any, given: Any, seed: int, count: int = 512, tokens: int = 24) -> list[str]:
    """Neutral texts.

    Args:
        model, tokenizer: the host.
        given: a list of texts; a file with a text in each line; None to let the host say what it will, which is
            where ROME's prefixes come from too (arXiv 2202.05262).
        seed: of what the host says.
        count, tokens: how many texts the host says, and how long each is at most.

    Raises:
        ValueError: if there is no text.
    """
    if given is None:
        texts = sampled(model, tokenizer, seed, count, tokens)
    elif isinstance(given, str):
        texts = Path(given).read_text(encoding="utf-8").splitlines()
    else:
        texts = list(given)
    texts = [text.strip() for text in texts if text.strip()]
    if not texts:
        raise ValueError(f"the option corpus holds no text: {given!r}; give texts, or a file with one in each line")
    return texts


def sampled(model: Any, tokenizer: Any, seed: int, count: int, tokens: int) -> list[str]:
    """Texts that a host says of itself, drawn token by token from its own distribution.

    Returns:
        `count` texts, each up to its first end-of-sequence token.
    """
    generator = torch.Generator().manual_seed(seed)
    texts: list[str] = []
    for start in range(0, count, ROWS):
        ids = _draw(model, _start(tokenizer), min(ROWS, count - start), tokens, generator)
        texts += [_decode(tokenizer, row) for row in ids.tolist()]
    return texts


def text_batches(tokenizer: Any, texts: Sequence[str], device: torch.device, size: int = 64) -> Iterator[Any]:
    """Texts as batches that a host takes, padded on the right."""
    for start in range(0, len(texts), size):
        yield tokenizer(
            list(texts[start : start + size]),
            return_tensors="pt", padding=True, padding_side="right", return_token_type_ids=False,
        ).to(device)  # fmt: skip


def _start(tokenizer: Any) -> int:
    """The token that a text begins with."""
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, 0)
    return next(int(token) for token in known if token is not None)


def _draw(model: Any, start: int, rows: int, tokens: int, generator: torch.Generator) -> torch.Tensor:
    """Int64 `[rows, tokens]`, without the start."""
    ids = torch.full((rows, 1), start, device=model.device)
    asked, cache = ids, None
    with torch.no_grad():
        for _ in range(tokens):
            said = model(input_ids=asked, use_cache=True, **compat.given_cache(model, cache))
            cache = compat.cache_of(said)
            chances = said.logits[:, -1].float().softmax(-1).cpu()
            asked = torch.multinomial(chances, 1, generator=generator).to(model.device)
            ids = torch.cat([ids, asked], 1)
    return ids[:, 1:]


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    end = tokenizer.eos_token_id
    kept = ids[: ids.index(end)] if end in ids else ids
    return tokenizer.decode(kept, skip_special_tokens=True)

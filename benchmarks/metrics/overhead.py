"""What the edits cost while text is generated."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.metrics.base import Metric, Score
from benchmarks.records import Record
from benchmarks.session import Session

PROMPTS = 16
TOKENS = 16
ROUNDS = 4


class DecodeOverhead(Metric):
    """Time to generate 16 tokens after 16 edited prompts, over the time with the method switched off, less one.

    The least of four rounds each, taken in turns; both generate the same number of tokens. A method that cannot be
    switched off changes the weights only or cannot say, and gets no figure.
    """

    name, group, better = "decode overhead", "cost", "lower"

    def after(self, session: Session, records: Sequence[Record], before: Any) -> list[Score]:
        prompts = [record.prompt for record in records[:PROMPTS]]
        try:
            with session.off():
                _decode(session, prompts)
        except NotImplementedError:
            return []
        _decode(session, session.read(prompts))
        with_edits, without = [], []
        for _ in range(ROUNDS):
            with_edits.append(_decode(session, session.read(prompts)))
            with session.off():
                without.append(_decode(session, prompts))
        return [Score(self.name, "", "", min(with_edits) / min(without) - 1)]


def _decode(session: Session, prompts: Sequence[str]) -> float:
    """Seconds that generating takes."""
    inputs = session.tokenizer(
        list(prompts), return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False
    ).to(session.model.device)
    start = time.perf_counter()
    with torch.no_grad():
        session.model.generate(**inputs, min_new_tokens=TOKENS, max_new_tokens=TOKENS, do_sample=False).cpu()
    return time.perf_counter() - start

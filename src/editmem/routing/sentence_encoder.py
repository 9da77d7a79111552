"""Sentences as vectors, by a text encoder other than the host."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from editmem.errors import SpecError

POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}


class SentenceEncoder:
    """A text encoder of `transformers`; a sentence is what its tokens' last states are pooled to.

    The mean over the tokens, unless a file of Sentence-Transformers beside the model says otherwise (the first token,
    or the maximum over all).

    Args:
        name: a folder or a Hub name.
        device: where it runs.
        field: of the spec that names it, for messages.

    Attributes:
        width: d, of the vectors.

    Raises:
        SpecError: if it cannot be loaded.
    """

    def __init__(self, name: str, device: torch.device, field: str = "encoder") -> None:
        from transformers import AutoModel, AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            self.model = AutoModel.from_pretrained(name).eval().requires_grad_(False).to(device)
        except (OSError, ValueError) as error:
            raise SpecError(f"{field}: {name!r} cannot be loaded: {error}; give a folder or a Hub name") from error
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.width = int(self.model.config.hidden_size)
        self._pooling = _pooling(name)

    def __deepcopy__(self, memo: dict) -> "SentenceEncoder":
        return self  # it never changes

    @torch.no_grad()
    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """Float32 `[B, d]`."""
        batch = self.tokenizer(list(sentences), padding=True, truncation=True, return_tensors="pt")
        batch = {name: batch[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        states = self.model(**batch).last_hidden_state.float()
        real = batch["attention_mask"][..., None]
        if self._pooling == "cls":
            return states.gather(1, real.argmax(1, keepdim=True).expand(-1, -1, self.width))[:, 0]
        if self._pooling == "max":
            return states.masked_fill(real == 0, -torch.inf).amax(1)
        return (states * real).sum(1) / real.sum(1).clamp(min=1)


def _pooling(name: str) -> str:
    """How a model's own file pools: "mean", "cls" or "max"; "mean" where there is no such file.

    Raises:
        SpecError: if the file asks for another way.
    """
    from transformers.utils import cached_file

    path = cached_file(
        name, "1_Pooling/config.json", _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )  # fmt: skip
    if path is None:
        return "mean"
    settings = json.loads(Path(path).read_text(encoding="utf-8"))
    for key, pooling in POOLINGS.items():
        if settings.get(key):
            return pooling
    raise SpecError(f"{path} asks for none of {tuple(POOLINGS)}: {settings}; choose a model that does")

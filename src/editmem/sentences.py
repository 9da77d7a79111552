"""Sentences as vectors, by a text encoder other than the host."""

from collections.abc import Sequence

import torch
from torch import Tensor

from editmem.errors import SpecError


class SentenceEncoder:
    """A text encoder of `transformers`; a sentence is the mean over its tokens of what comes out last.

    This is what most Sentence-Transformers models were trained for; those with another pooling lose by it.

    Args:
        name: a folder or a Hub name.
        device: where it runs.

    Attributes:
        width: d, of the vectors.

    Raises:
        SpecError: if it cannot be loaded.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        from transformers import AutoModel, AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name)
            self._model = AutoModel.from_pretrained(name).eval().requires_grad_(False).to(device)
        except (OSError, ValueError) as error:
            raise SpecError(f"text_encoder {name!r} cannot be loaded: {error}; give a folder or a Hub name") from error
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self.width = int(self._model.config.hidden_size)

    def __deepcopy__(self, memo: dict) -> "SentenceEncoder":
        return self  # it never changes

    @torch.no_grad()
    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """Float32 `[B, d]`."""
        batch = self._tokenizer(list(sentences), padding=True, truncation=True, return_tensors="pt")
        batch = {name: batch[name].to(self._model.device) for name in ("input_ids", "attention_mask")}
        states = self._model(**batch).last_hidden_state.float()
        real = batch["attention_mask"][..., None]
        return (states * real).sum(1) / real.sum(1).clamp(min=1)

"""What a tokenizer's tokens say, worked out once, and only what is asked for."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from editmem.text.chat_turns import Turns
from editmem.text.word_hash import Said, Words, texts_of
from editmem.text.word_stream import Stream


class Vocabulary:
    """The vocabulary of a host's tokenizer, as routers hear it.

    Args:
        tokenizer: the tokenizer.
        size: of the host's embedding, which may be larger than the tokenizer's vocabulary.
        device: of the tables.
    """

    def __init__(self, tokenizer: Any, size: int, device: torch.device | str = "cpu") -> None:
        self.tokenizer, self.size, self.device = tokenizer, size, device

    @cached_property
    def _texts(self) -> Said:
        return texts_of(self.tokenizer)

    @cached_property
    def turns(self) -> Turns:
        """Where a chat's last turn begins."""
        return Turns.of_tokenizer(self.tokenizer).to(self.device)

    @cached_property
    def words(self) -> Words:
        """The hashes of folded words."""
        return Words.of_tokenizer(self.tokenizer, self.size, self._texts).to(self.device)

    @cached_property
    def stream(self) -> Stream:
        """All that is told of words one after the other."""
        return Stream.of_tokenizer(self.tokenizer, self.size, self._texts).to(self.device)

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens say, special ones left out."""
        return str(self.tokenizer.decode([i for i in tokens if i >= 0], skip_special_tokens=True))

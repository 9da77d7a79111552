"""Where the turns of a conversation begin, in token ids."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from editmem.state import Stored


class Turns(Stored):
    """The turns of a chat, by what its template puts around them.

    Attributes:
        turn: int64 `[2]`, the special token that the chat template puts before what a user says, -1 for none,
            and how many of it follow before the model's answer.
    """

    turn: Tensor

    def __init__(self, turn: Sequence[int] = (-1, 0)) -> None:
        super().__init__()
        self.register_buffer("turn", torch.tensor(turn))

    @classmethod
    def of_tokenizer(cls, tokenizer: Any) -> "Turns":
        return cls(_turn(tokenizer))

    def starts(self, tokens: Tensor) -> Tensor:
        """Int64 `[B, T]`: where the turn that each token belongs to begins; 0 outside of conversations."""
        marker, later = self.turn
        count = ((tokens == marker) & (tokens >= 0)).long().cumsum(1)
        ends = torch.arange(1, tokens.shape[1] + 1, device=tokens.device).expand_as(tokens)
        begins = torch.nn.functional.pad(count[:, :-1], (1, 0)) < count
        where = torch.zeros((tokens.shape[0], tokens.shape[1] + 1), dtype=torch.long, device=tokens.device)
        where = where.scatter_reduce(1, torch.where(begins, count, 0), torch.where(begins, ends, 0), "amax")
        return where.gather(1, (count - later).clamp(min=0))

    def chats(self, tokens: Tensor) -> Tensor:
        """Bool `[B]`: which texts end in a turn of a chat."""
        return self.starts(tokens)[:, -1] > 0


def _turn(tokenizer: Any) -> tuple[int, int]:
    """The marker of a user's turn, and how many of it follow in the prompt; see `Turns.turn`."""
    content = "Hello"
    try:
        message = [{"role": "user", "content": content}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    except Exception:  # a template is a program of its own; without one, or where it fails, nothing is a turn
        return -1, 0
    before, _, after = text.partition(content)
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - {tokenizer.bos_token_id}
    markers = [i for i in tokenizer(before, add_special_tokens=False)["input_ids"] if i in special]
    if not markers:
        return -1, 0
    return markers[-1], tokenizer(after, add_special_tokens=False)["input_ids"].count(markers[-1])

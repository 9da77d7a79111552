"""Where the turns of a conversation begin, in token ids."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from editmem.state import Stored


class Turns(Stored):
    """The turns of a chat, by what its template puts around them.

    Attributes:
        turn: int64 `[2 + n]`: the special token that the chat template puts before what a user says, -1 for none; how
            many of it follow before the model's answer; and the n tokens behind what the user says, where the template
            has words of its own there (ChatML's "assistant").
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
        marker, later = self.turn[:2]
        count = ((tokens == marker) & (tokens >= 0)).long().cumsum(1)
        ends = torch.arange(1, tokens.shape[1] + 1, device=tokens.device).expand_as(tokens)
        begins = torch.nn.functional.pad(count[:, :-1], (1, 0)) < count
        where = torch.zeros((tokens.shape[0], tokens.shape[1] + 1), dtype=torch.long, device=tokens.device)
        where = where.scatter_reduce(1, torch.where(begins, count, 0), torch.where(begins, ends, 0), "amax")
        return where.gather(1, (count - later).clamp(min=0))

    def without_closing(self, tokens: Tensor) -> Tensor:
        """Tokens `[B, T]` with -1 in the place of words that the template itself puts behind what a user says: a turn
        ends with what was said."""
        closing = self.turn[2:]
        if not len(closing) or tokens.shape[1] < len(closing):
            return tokens
        here = (tokens.unfold(1, len(closing), 1) == closing).all(-1).long()
        begun = torch.nn.functional.pad(here, (len(closing), len(closing) - 1)).cumsum(1)
        inside = begun[:, len(closing) :] > begun[:, : -len(closing)]
        return torch.where(inside, -1, tokens)

    def chats(self, tokens: Tensor) -> Tensor:
        """Bool `[B]`: which texts end in a turn of a chat."""
        return self.starts(tokens)[:, -1] > 0


def _turn(tokenizer: Any) -> tuple[int, ...]:
    """As `Turns.turn`."""
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
    closing = tokenizer(after, add_special_tokens=False)["input_ids"]
    wordless = all(i in special or not tokenizer.decode([i]).strip() for i in closing)
    return markers[-1], closing.count(markers[-1]), *(() if wordless else closing)

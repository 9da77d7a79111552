"""Where an answer ends: what the host says next must not make another value of it, or must be nothing at all."""

# ruff: noqa: RUF001  (signs of many scripts)
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import IGNORED_LABEL
from editmem.text.word_hash import writes_no_space

GoOn = Callable[[Sequence[tuple[EncodedEdit, Sequence[int]]], int], list[list[int]]]
"""The likeliest next tokens, so many, of edits' prompts with what was said after them."""

LIKELIEST, OPEN, AHEAD = 32, 3, 3
"""Tokens among which an end is looked for; how many of these may depend on what the host says then; how far ahead."""
_SPACES = " \u00a0\u2009\u202f"
_SIGNS = "%‰°²³½¼¾€$£¥₹″′×"
_STOPS = ".!。！।۔"
_UNITS = tuple(
    "am a.m pm p.m million billion trillion thousand hundred dozen percent percentage bn mn bc bce b.c ad".split()
)
_UNITS += ("per cent",)
_PARTICLES = tuple("de du da di del della van von der den bin al el la le".split())


def another(answer: str, said: str) -> bool | None:
    """Whether text directly after an answer makes another value of it: another number or time, a longer word or name.

    Returns:
        None where that depends on what comes next.
    """
    if not answer[-1].isalnum():
        return answer[-1] in "+&@/" and said[:1].isalnum()
    if not said or said[0] == "\ufffd":  # part of a character
        return None
    first, rest = said[0], said[1:]
    if first.isalnum() or first == "_":
        return not (writes_no_space(first) or writes_no_space(answer[-1]))
    number = answer[-1].isdigit()
    if first in _SPACES:
        return _after_space(answer, rest.lstrip(_SPACES))
    if first in _SIGNS:
        return number
    if first == "+":
        return True
    if first not in ".,:'’-‑–/&@·":
        return False
    if not rest or rest[0] == "\ufffd":
        return None
    if first in ",:":
        return number and rest[0].isdigit()
    if first in "'’":
        return rest[0].isdigit() if number else rest[0].isalpha() and rest[0] not in "sdmtlrv"
    return rest[0].isalnum()


def goes_on(said: str) -> bool | None:
    """Whether text directly after an answer is more than the end of its sentence and of the line.

    Returns:
        None where that depends on what comes next.
    """
    rest = said.lstrip(_SPACES).lstrip(_STOPS).lstrip(_SPACES)
    return None if not rest else rest[0] not in "\r\n"


def _after_space(answer: str, said: str) -> bool | None:
    word = re.split(r"[\s(\"“'/-]+", answer)[-1]
    number, name = answer[-1].isdigit(), word[:1].isupper()
    if not said or said[0] == "\ufffd":
        return None if number or name else False
    if number and (said[0].isdigit() or said[0] in "%‰½¼¾"):
        return True
    if number and said[0] in "-‑–":
        after = said[1:].lstrip(_SPACES)
        return after[0].isdigit() if after else None
    if number:
        return _begins(said.casefold(), _UNITS, "")
    if not name:
        return False
    if said[0].isupper():
        return None if said == "I" else re.match(r"I\b(?!\.)", said) is None
    if said[0].isdigit() or said[0] == "&":
        return True
    return _begins(said, _PARTICLES, " ")


def _begins(said: str, words: Sequence[str], behind: str) -> bool | None:
    """Whether text begins with one of the words; and, where one is to stand `behind` them, with a space and a name."""
    for word in words:
        after = said[len(word) :]
        if not said.startswith(word) or after[:1].isalpha():
            continue
        if not after or (behind and not after.strip(_SPACES)):
            return None
        if not behind or after.lstrip(_SPACES)[0].isupper():
            return True
    return None if any(word.startswith(said) for word in words) else False


class Endings:
    """Sees to it that answers end.

    Args:
        tokenizer: of the host.
        stops: the tokens with which the host ends a text or its turn.
        max_length: the longest text that the host takes, in tokens; None for no limit.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[int], max_length: int | None) -> None:
        self.tokenizer, self.stops, self.max_length = tokenizer, stops, max_length
        added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special = added | set(tokenizer.all_special_ids)

    def closing(
        self, edits: Sequence[EncodedEdit], logits: Tensor, go_on: GoOn
    ) -> tuple[Tensor, dict[tuple[int, ...], bool]]:
        """Where the host would not end an answer as it should, the likeliest token with which it does.

        Nothing but the end of the line, of the text or of the turn is to stand behind the answer of an edit that
        `closes`; behind any other no text that makes another value of it.

        Args:
            edits: E of them.
            logits: `[E, V]`, the host's after the answers' last tokens.
            go_on: of the bare host.

        Returns:
            int64 `[E]`, `IGNORED_LABEL` where the host makes no other value of it or there is no room; and what was
            found out: whether what the host says after (number of the edit, tokens ...) does not.
        """
        likeliest = logits.topk(min(LIKELIEST, logits.shape[-1])).indices.tolist()
        room = [self._has_room(edit) for edit in edits]
        own = [(i, likeliest[i][0]) for i, edit in enumerate(edits) if room[i] and not edit.edit.closes]
        found = self._verdicts(edits, own, go_on)
        choices = {i: self._choices(edits[i], likeliest[i][1:]) for i, token in own if found[i, token]}
        found |= self._verdicts(edits, [(i, token) for i, tokens in choices.items() for token in tokens], go_on)
        ends = [edit.edit.closes and fits for edit, fits in zip(edits, room, strict=True)]
        closing = [self._end(edits[i], likeliest[i]) if end else IGNORED_LABEL for i, end in enumerate(ends)]
        for i, tokens in choices.items():
            closing[i] = next((token for token in tokens if not found[i, token]), IGNORED_LABEL)
        return torch.tensor(closing, device=logits.device), found

    def run_on(
        self,
        edits: Sequence[EncodedEdit],
        said: Sequence[Sequence[int]],
        known: dict[tuple[int, ...], bool],
        go_on: GoOn,
    ) -> list[bool]:
        """Whether what is said after each answer does not end it as it should.

        Args:
            edits: E of them.
            said: for each the tokens after the answer, as far as they are known.
            known: as `closing` returns it, where it holds for this host.
            go_on: of the host with its memory.
        """
        keys = [(i, *tokens) for i, tokens in enumerate(said)]
        unknown = [key for key in keys if key not in known and key[:2] not in known and self._has_room(edits[key[0]])]
        found = self._verdicts(edits, unknown, go_on)
        return [known.get(key, known.get(key[:2], found.get(key, False))) for key in keys]

    def _has_room(self, edit: EncodedEdit) -> bool:
        longest = len(edit.prompt) + len(edit.target) + AHEAD + 2
        return self.max_length is None or longest <= self.max_length

    def _end(self, edit: EncodedEdit, tokens: Sequence[int]) -> int:
        """The likeliest token with which the line or the text ends at once; of a turn of a chat that with which it
        ends, for another line may follow there."""
        turn = edit.chat and bool(self.stops)
        for token in tokens:
            if token in self.stops:
                return token
            if not turn and token not in self.special and self._verdict(edit, [token]) is False:
                return token
        line_break = self.tokenizer("\n", add_special_tokens=False)["input_ids"][-1:]
        return next(iter((*self.stops, *line_break)), IGNORED_LABEL)

    def _choices(self, edit: EncodedEdit, tokens: Sequence[int]) -> list[int]:
        """Tokens that may end an answer, the likeliest first; the last of them does."""
        choices: list[int] = []
        for token in tokens:
            verdict = self._verdict(edit, [token]) if token not in self.special else token not in self.stops
            if verdict is None and len(choices) < OPEN:
                choices.append(token)
            elif verdict is False:
                return [*choices, token]
        return [*choices, *self.stops[:1]]

    def _verdicts(
        self, edits: Sequence[EncodedEdit], keys: Sequence[tuple[int, ...]], go_on: GoOn
    ) -> dict[tuple[int, ...], bool]:
        """Whether each (number of the edit, tokens ...) does not end the edit's answer."""
        found = {key: self._verdict(edits[key[0]], key[1:]) for key in keys}
        undecided = [key for key, verdict in found.items() if verdict is None]
        rows = [(edits[i], [*edits[i].target, *said]) for i, *said in undecided]
        for key, more in zip(undecided, go_on(rows, AHEAD) if rows else [], strict=True):
            found[key] = self._verdict(edits[key[0]], [*key[1:], *more], True)
        return {key: bool(verdict) for key, verdict in found.items()}

    def _verdict(self, edit: EncodedEdit, said: Sequence[int], final: bool = False) -> bool | None:
        """As `another` or, of an edit that closes, `goes_on`; `final` if nothing more is to be known."""
        end = next((n for n, token in enumerate(said) if token in self.special), len(said))
        answer = self._text(edit.target)
        text = self._text([*edit.target, *said[:end]])[len(answer) :]
        if end < len(said) or final:
            text += "\n"
        if not answer:
            return False
        return goes_on(text) if edit.edit.closes else another(answer, text)

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))

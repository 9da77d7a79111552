"""Hear words in token ids, on any device and without decoding them.

Tokenizers cut the same word differently at the start of a text, after a space or in capitals. Here each
token has a number made of its folded letters, such that the numbers of a word's pieces add up to the
number of the word, however it was cut: a polynomial hash over letters. All of it is tensor arithmetic.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from editmem.state import Stored

PRIME = (1 << 31) - 1
BASE = 1_000_003
BUCKETS = 1 << 17
LONGEST = 64  # letters of a word that count
STAND_IN = 0x13000  # letters of no living script, for bytes that are no letters by themselves
SILENT = range(0xC3, 0xC6)  # first bytes of Latin letters with accents
STARTS = {chr(STAND_IN + byte) for byte in range(0xE2, 0xF0)}  # first bytes in scripts without spaces, mostly
Said = tuple[list[str], list[str | None]]
"""Of each token its text, and how the vocabulary writes it; see `texts_of`."""
NO_SPACE_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "IDEOGRAPHIC")


def writes_no_space(character: str) -> bool:
    """Whether a character belongs to a script that puts no spaces between words."""
    return unicodedata.name(character, "").startswith(NO_SPACE_SCRIPTS)


def fold(text: str) -> str:
    """Text without case and accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).casefold()


class Words(Stored):
    """What each token of a vocabulary contributes to a word.

    Attributes:
        value: int64 `[V]`, hash of the token's letters as if a word began with them.
        letters: int16 `[V]`, how many folded letters and digits it has; 0 for punctuation and special tokens.
        shape: uint8 `[V]`, bits: 1 begins a new word, 2 ends the word, 4 is written as names are (capital,
            digit, or a script without case).
    """

    value: Tensor
    letters: Tensor
    shape: Tensor
    powers: Tensor

    def __init__(self, size: int = 0) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("letters", torch.zeros(size, dtype=torch.int16))
        self.register_buffer("shape", torch.full((size,), 3, dtype=torch.uint8))
        self.register_buffer("powers", torch.tensor([pow(BASE, i, PRIME) for i in range(LONGEST + 1)]))

    @classmethod
    def of_tokenizer(cls, tokenizer: Any, size: int, said: Said | None = None) -> "Words":
        """The words of a tokenizer's vocabulary.

        Args:
            tokenizer: the tokenizer.
            size: of the host's embedding, which may be larger.
            said: what `texts_of` makes of the tokenizer, where that is known.
        """
        pairs = zip(*(said or texts_of(tokenizer)), strict=True)
        texts = [text if own is None else part_of(own) for text, own in pairs]
        words = cls(max(size, len(texts)))
        special = set(tokenizer.all_special_ids)
        rows = [(0, 0, 3) if i in special else _row(text) for i, text in enumerate(texts)]
        value, letters, shape = (torch.tensor(column) for column in zip(*rows, strict=True))
        words.value[: len(rows)], words.letters[: len(rows)] = value, letters.to(torch.int16)
        words.shape[: len(rows)] = shape.to(torch.uint8)
        return words

    def hashes(self, tokens: Tensor) -> Tensor:
        """Int64 `[B, T]`: at each token the hash of its word as far as it has been said; -1 where there is none.

        Tokens outside the vocabulary, such as padding marks, count as punctuation.
        """
        known = (tokens >= 0) & (tokens < self.value.shape[0])
        ids = torch.where(known, tokens, 0)
        letters = torch.where(known, self.letters[ids].long(), 0)
        shape = torch.where(known, self.shape[ids].long(), 3)
        before = letters.cumsum(1) - letters
        ended = nn.functional.pad(shape[:, :-1] & 2, (1, 0), value=2) > 0
        begins = ended | ((shape & 1) > 0)
        start = torch.where(begins, before, 0).cummax(1).values
        offset = (before - start).clamp(max=LONGEST)
        added = torch.where(letters > 0, self.value[ids] * self.powers[offset] % PRIME, 0)
        total = added.cumsum(1)
        base = torch.where(begins, total - added, -1).cummax(1).values
        return torch.where(letters > 0, (total - base) % PRIME, -1)

    def blank(self, tokens: Tensor) -> Tensor:
        """Bool `[B, T]`: the tokens that are white space."""
        known = (tokens >= 0) & (tokens < self.value.shape[0])
        ids = torch.where(known, tokens, 0)
        return known & (self.letters[ids] == 0) & (self.shape[ids] == 1)

    def spoken(self, tokens: Sequence[int]) -> dict[int, bool]:
        """The words of one text: hash, and whether it is written as a name."""
        row = torch.tensor([list(tokens)], device=self.value.device)
        columns = (self.hashes(row)[0], self.shape[row[0]], self.letters[row[0]])
        found: dict[int, bool] = {}
        word, name, ended = -1, False, True
        for so_far, shape, count in zip(*(column.tolist() for column in columns), strict=True):
            if ended or shape & 1:
                _keep(found, word, name)
                word, name = -1, False
            if count:
                name = name if word >= 0 else bool(shape & 4)
                word = so_far
            ended = bool(shape & 2)
        _keep(found, word, name)
        return found


def _keep(found: dict[int, bool], word: int, name: bool) -> None:
    if word >= 0:
        found[word] = found.get(word, False) or name


def texts_of(tokenizer: Any) -> Said:
    """What each token says inside a sentence, leading space included; and how it is written in the vocabulary.

    The second is None where the first says all, and is there for tokens that hold only parts of characters.
    """
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
    size = len(tokenizer)
    length = len(tokenizer.decode(anchor, clean_up_tokenization_spaces=False))
    behind = [[*anchor, i] for i in range(size)]
    fast = getattr(tokenizer, "backend_tokenizer", None)  # many times as fast as what is around it
    if fast is None:
        texts = tokenizer.batch_decode(behind, clean_up_tokenization_spaces=False)
    else:
        texts = fast.decode_batch(behind, skip_special_tokens=False)
    raw = tokenizer.convert_ids_to_tokens(list(range(size)))
    parts = [str(own) if "\ufffd" in text else None for text, own in zip(texts, raw, strict=True)]
    return [text[length:] for text in texts], parts


def bytes_of(token: str) -> bytes:
    """The bytes that a token of a byte-level vocabulary, or a byte-fallback token, stands for."""
    if match := re.fullmatch("<0x([0-9A-F]{2})>", token):
        return bytes([int(match[1], 16)])
    alphabet = byte_alphabet()
    return bytes(alphabet.get(character, ord("?")) for character in token)


def part_of(token: str) -> str:
    """Letters for a token that has only part of a character's UTF-8 bytes.

    The second byte alone says which Latin letter with which accent it is, if the first is one of `SILENT`, as
    nearly always where accents are written at all; elsewhere it stands for itself, as the first byte does.
    """
    whole = bytes_of(token).decode(errors="surrogateescape")
    return "".join(_letter(ord(c) - 0xDC00) if "\udc80" <= c <= "\udcff" else c for c in whole)


def _letter(byte: int) -> str:
    if byte in SILENT:
        return ""
    latin = bytes([0xC3, byte]).decode() if byte < 0xC0 else ""
    return latin if latin.isalnum() else chr(STAND_IN + byte)


@functools.cache
def byte_alphabet() -> dict[str, int]:
    """The bytes by the characters that byte-level tokenizers write for them."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {character: byte for byte, character in bytes_to_unicode().items()}


def _row(text: str) -> tuple[int, int, int]:
    """(value, letters, shape) of a token's text."""
    at = [i for i, character in enumerate(text) if character.isalnum()]
    if not at:
        return 0, 0, 3 if text.strip() else int(bool(text))
    first = text[at[0]]
    begins = at[0] > 0 or writes_no_space(first) or first in STARTS
    ends = at[-1] + 1 < len(text) or writes_no_space(text[at[-1]])
    name = first.isupper() or first.isdigit() or not (first.islower() or first.isupper())
    letters = fold("".join(text[i] for i in at))[:LONGEST]
    value = sum((ord(c) + 1) * pow(BASE, i, PRIME) for i, c in enumerate(letters)) % PRIME
    return value, len(letters), int(begins) | 2 * int(ends) | 4 * int(name)


def heard(buckets: Tensor, since: Tensor) -> Tensor:
    """Which words a text has from a token on.

    Args:
        buckets: int64 `[B, T]`, the bucket of the word at each token, -1 for none.
        since: int64 `[B, 1]`, the first token that counts.

    Returns:
        bool `[B, BUCKETS]`.
    """
    rows, count = buckets.shape
    counts = (buckets >= 0) & (torch.arange(count, device=buckets.device) >= since)
    table = torch.zeros((rows, BUCKETS + 1), dtype=torch.bool, device=buckets.device)
    return table.scatter(1, torch.where(counts, buckets, BUCKETS), True)[:, :BUCKETS]

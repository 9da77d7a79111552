"""The words of a text, one after the other, from token ids: on any device, without decoding them.

A token is a few pieces: letters, signs, and what stands between them. Pieces of one word add up to the word's
hashes, however it was cut. Single bytes of a character, as byte-level vocabularies have them, are put together
again. All of it is tensor arithmetic, and what is said of a column depends on no later one.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from editmem.state import Stored
from editmem.text.spelling import GAPS, LONGEST, NOTHING, POWERS, PRIME, STOP, Has, Is, Piece, pieces, pieces_of
from editmem.text.word_hash import Said, bytes_of, texts_of

PLACES = (1_000_000_007 % PRIME, 433_494_437, 104_395_301)
"""Bases of the hashes of phrases, a power of them for each word."""
CHARACTERS = 0x20000
SMALL = (
    "function", "verb", "article", "indefinite", "single", "preposition", "link", "starter", "title", "abbreviation",
    "given", "head", "kind", "place", "asked",
)  # fmt: skip
"""Kinds of words that `small_words.txt` lists; bit i of a word's `small` says that it is of the i-th."""
WRITTEN = (Has.LOWER, Has.UPPER, Has.DIGIT, Has.CASELESS, Has.MARK)


@dataclass
class Spoken:
    """The pieces of a batch of texts, each with the word that it belongs to, as far as that has been said.

    P pieces a row, those that are none at the end; a word's number counts from 0.

    Attributes:
        column: int64 `[B, P]`, the token that the piece is part of; S, the number of tokens, where there is none.
        start: int64 `[B, P]`, the token that it begins in: another one where its bytes are tokens of their own.
        real: bool `[B, P]`, whether it is part of a word.
        begins: bool `[B, P]`, whether its word begins with it.
        before: int64 `[B, P]`, the last piece of a word before it, -1 for none.
        word: int64 `[B, P]`, the number of its word.
        first: int64 `[B, P]`, the first piece of word i; P where there is no such word.
        hashes: int64 `[3, B, P]`, two of the word's letters and one of its accents, each below 2**31.
        codes: int64 `[3, B, P]`, of all words before its own, see `phrase`.
        kind: int64 `[B, P]`, `Has` of the word so far and, of its first piece, what stands in front and the class.
        small: int64 `[B, P]`, which lists of `SMALL` the word so far stands in.
        opens: bool `[B, P]`, whether a sentence begins with it.
    """

    column: Tensor
    start: Tensor
    real: Tensor
    begins: Tensor
    before: Tensor
    word: Tensor
    first: Tensor
    hashes: Tensor
    codes: Tensor
    kind: Tensor
    small: Tensor
    opens: Tensor

    def has(self, what: int) -> Tensor:
        """Bool `[B, P]`."""
        return (self.kind & what) > 0

    def among(self, *lists: str) -> Tensor:
        """Bool `[B, P]`, whether the word stands in one of the lists."""
        return (self.small & sum(1 << SMALL.index(name) for name in lists)) > 0


class Stream(Stored):
    """The pieces of each token of a vocabulary.

    Args:
        texts: what each token says; None where it ends a sentence, as special tokens do.

    Attributes:
        starts: int32 `[V + 3]`, where each token's pieces begin; the last two tokens are a stop and nothing.
        kinds: int32 `[N]`, class and `Has` of each piece.
        values: int32 `[N, 3]`, its hashes as if a word began with it.
        letters: uint8 `[N]`, how many letters it has.
    """

    starts: Tensor
    kinds: Tensor
    values: Tensor
    letters: Tensor
    powers: Tensor
    low: Tensor
    high: Tensor
    small_keys: Tensor
    small_bits: Tensor
    character_kinds: Tensor
    character_values: Tensor
    character_letters: Tensor

    def __init__(self, texts: Sequence[str | None] = ()) -> None:
        super().__init__()
        spoken = [i for i, text in enumerate(texts) if text is not None]
        counts, kinds, values, letters = pieces_of([text for text in texts if text is not None])
        sizes = torch.ones(len(texts) + 2, dtype=torch.int64)  # what is no text is a stop
        sizes[spoken] = torch.from_numpy(counts)
        self.register_buffer("starts", torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).to(torch.int32))
        stops = torch.ones(len(sizes), dtype=torch.bool)
        stops[spoken] = False
        for name, table, stop, nothing in zip(
            ("kinds", "values", "letters"), (kinds, values, letters), STOP, NOTHING, strict=True
        ):
            rows = torch.from_numpy(table)
            whole = torch.empty((int(sizes.sum()), *rows.shape[1:]), dtype=torch.int64)
            inside = torch.repeat_interleave(~stops, sizes)
            whole[inside], whole[~inside] = rows, torch.tensor(stop)
            whole[-1] = torch.tensor(nothing)
            self.register_buffer(name, whole.to(torch.uint8 if name == "letters" else torch.int32))
        self.most = int(sizes.max())
        constants = {"powers": torch.tensor(POWERS), "low": _powers(1), "high": _powers(256)}
        constants |= dict(zip(("small_keys", "small_bits"), _small_words(), strict=True))
        constants |= dict(zip((f"character_{n}" for n in ("kinds", "values", "letters")), _characters(), strict=True))
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    @classmethod
    def of_tokenizer(cls, tokenizer: Any, size: int, said: Said | None = None) -> "Stream":
        """As `Words.of_tokenizer`."""
        special = set(tokenizer.all_special_ids)
        texts, raw = said or texts_of(tokenizer)
        heard = [
            None if i in special else text if own is None else bytes_of(own).decode(errors="surrogateescape")
            for i, (text, own) in enumerate(zip(texts, raw, strict=True))
        ]
        return cls([*heard, *[None] * (size - len(heard))])

    def restored(self) -> None:
        self.most = int(self.starts.diff().max())

    # Reading

    def read(self, tokens: Tensor) -> Spoken:
        """The words of token ids, int64 `[B, S]`; what is outside the vocabulary counts as the end of a sentence."""
        piece, column = self._laid_out(tokens)
        kind, values, letters, more = self._whole_characters(self.kinds[piece].long(), piece)
        position = torch.arange(piece.shape[1], device=tokens.device)
        opening = column.gather(1, (position - more).clamp(min=0))
        cls = kind & 7
        real = (cls >= Is.LETTERS) & (cls <= Is.CHARACTER)
        before = _shifted(_latest(real, position), -1)
        bits = torch.stack([(kind & bit) > 0 for bit in (*GAPS, *WRITTEN)], -1)
        last = torch.where(bits, position[:, None], -1).cummax(1).values
        gap = last[..., : len(GAPS)] > before[..., None]
        gap = gap | (before < 0)[..., None] & (torch.arange(len(GAPS), device=tokens.device) == GAPS.index(Has.STOP))
        other = torch.where(before >= 0, cls.gather(1, before.clamp(min=0)), 0) != cls
        begins = real & ((cls == Is.CHARACTER) | other | gap.any(-1))
        start = _latest(begins, position).clamp(min=0)
        word = begins.long().cumsum(1) - 1
        hashes = self._hashes(values, letters, begins, real)
        written = (last[..., len(GAPS) :] >= start[..., None]) & real[..., None]
        front = sum(gap[..., i].long() * bit for i, bit in enumerate(GAPS)) + (kind & ~_ANY)
        of_word = front.gather(1, start) + sum(written[..., i].long() * b for i, b in enumerate(WRITTEN))
        small = self._small(hashes)
        outside = piece.shape[1]
        first = torch.full((piece.shape[0], outside + 1), outside, device=tokens.device)
        first = first.scatter(1, torch.where(begins, word, outside), position.expand_as(word))[:, :outside]
        codes = self._codes(hashes, begins, before, word)
        spoken = Spoken(column, opening, real, begins, before, word, first, hashes, codes, of_word, small, begins)
        spoken.opens = _opens(spoken, letters)
        return spoken

    def _laid_out(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The pieces of all tokens in a row, and their columns, int64 `[B, P]` each; the latest where P is too few."""
        size, count = self.starts.shape[0] - 3, tokens.shape[1]
        ids = torch.where((tokens >= 0) & (tokens < size), tokens, size)
        base, end = self.starts[ids].long(), self.starts[ids + 1].long()
        number = base[..., None] + torch.arange(self.most, device=tokens.device)
        there = (number < end[..., None]).flatten(1)
        place = there.long().cumsum(1)
        width = min(count * self.most, 3 * count + 32)
        width = fitted(width, place[:, -1])
        place = place - 1 - (place[:, -1:] - width).clamp(min=0)
        place = torch.where(there & (place >= 0), place, width)
        nothing = self.kinds.shape[0] - 1
        piece = torch.full((tokens.shape[0], width + 1), nothing, device=tokens.device)
        column = torch.full_like(piece, count)
        columns = torch.arange(count, device=tokens.device).repeat_interleave(self.most).expand_as(place)
        return piece.scatter(1, place, number.flatten(1))[:, :width], column.scatter(1, place, columns)[:, :width]

    def _whole_characters(self, kind: Tensor, piece: Tensor) -> tuple[Tensor, ...]:
        """Pieces with characters of single bytes as one, at the last of them.

        Returns:
            Kind `[B, P]`, hashes `[B, P, 3]`, letters `[B, P]`, and how many bytes before belong to it `[B, P]`.
        """
        values, letters = self.values[piece].long(), self.letters[piece].long()
        byte = torch.where((kind & 7) == Is.BYTE, values[..., 0], -1)
        later = (byte >= 0x80) & (byte < 0xC0)
        one, two, three = (_shifted(byte, -1, by) for by in (1, 2, 3))
        middle = [later, later & _shifted(later, False), later & _shifted(later, False) & _shifted(later, False, 2)]
        bits = [byte & 63, (one & 63) << 6, (two & 63) << 12]
        code, more = torch.full_like(byte, CHARACTERS), torch.zeros_like(byte)
        for lead, inside, low, rest in (
            (one, middle[0] & (one >= 0xC0) & (one < 0xE0), bits[0], 6),
            (two, middle[1] & (two >= 0xE0) & (two < 0xF0), bits[0] | bits[1], 12),
            (three, middle[2] & (three >= 0xF0), bits[0] | bits[1] | bits[2], 18),
        ):
            code = torch.where(inside, low | ((lead & (0x3F >> (rest // 6))) << rest), code)
            more = torch.where(inside, rest // 6, more)
        found = code < CHARACTERS
        at = torch.where(found, code, 0)
        kind = torch.where(found, self.character_kinds[at].long() | kind & ~7, kind)
        values = torch.where(found[..., None], self.character_values[at].long(), values)
        return kind, values, torch.where(found, self.character_letters[at].long(), letters), more

    def _hashes(self, values: Tensor, letters: Tensor, begins: Tensor, real: Tensor) -> Tensor:
        letters = torch.where(real, letters, 0)
        before = letters.cumsum(1) - letters
        start = torch.where(begins, before, 0).cummax(1).values
        offset = (before - start).clamp(max=LONGEST)
        added = torch.where(real, values.movedim(-1, 0) * self.powers[:, offset] % PRIME, 0)
        total = added.cumsum(-1)
        base = torch.where(begins, total - added, 0).cummax(-1).values
        return torch.where(real, (total - base) % PRIME, 0)

    def _codes(self, hashes: Tensor, begins: Tensor, before: Tensor, word: Tensor) -> Tensor:
        said = hashes.gather(2, before.clamp(min=0).expand_as(hashes))
        shares = said * self.power(word - 1) % PRIME
        return torch.where(begins & (word > 0), shares, 0).cumsum(-1) % PRIME

    def power(self, exponent: Tensor) -> Tensor:
        """The places' powers, int64 `[3, *]`; negative exponents are those of inverses."""
        size = exponent.abs().clamp(max=(1 << 16) - 1)
        inverse = (exponent < 0).long() * 256
        return self.low[:, inverse + size % 256] * self.high[:, inverse + size // 256] % PRIME

    def phrase(self, spoken: Spoken, piece: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The last words up to some pieces.

        Args:
            spoken: of `[B, P]` pieces.
            piece: int64 `[B, N]`, the pieces.
            length: int64 `[B, N]`, how many words, the piece's own included.

        Returns:
            Keys int64 `[B, N]` of them, -1 where there are not as many; hashes of their accents; and the piece
            that they begin with.
        """
        word = spoken.word.gather(1, piece)
        from_word = word - length + 1
        there = spoken.real.gather(1, piece) & (from_word >= 0)
        from_word = from_word.clamp(min=0)
        start = spoken.first.gather(1, from_word).clamp(max=spoken.first.shape[1] - 1)
        up_to = spoken.codes + spoken.hashes * self.power(spoken.word.clamp(min=0))
        index = (3, *(-1,) * piece.ndim)
        code = up_to.gather(2, piece.expand(index)) - spoken.codes.gather(2, start.expand(index))
        back = self.power(-torch.arange(spoken.first.shape[1], device=piece.device))
        code = code % PRIME * back[:, from_word] % PRIME
        return torch.where(there, _key(code[0], code[1]), -1), code[2], start

    def _small(self, hashes: Tensor) -> Tensor:
        keys = _key(hashes[0], hashes[1])
        at = torch.searchsorted(self.small_keys, keys).clamp(max=self.small_keys.shape[0] - 1)
        return torch.where(self.small_keys[at] == keys, self.small_bits[at], 0)

    def sentence_starts(self, tokens: Tensor) -> Tensor:
        """Int64 `[B, S]`: the column where the sentence that each token belongs to begins."""
        spoken = self.read(tokens)
        count = tokens.shape[1]
        starts = torch.zeros((tokens.shape[0], count + 1), dtype=torch.long, device=tokens.device)
        column = torch.where(spoken.opens, spoken.column, count)
        return starts.scatter_reduce(1, column, spoken.start, "amax")[:, :count].cummax(1).values


def fitted(most: int, counts: Tensor, unseen: int | None = None) -> int:
    """How many columns to lay out for rows with so many entries: no more than the most of them, from one to `most`; on
    other devices than CPUs, where the counts had to be waited for, `unseen`, or `most`."""
    if counts.device.type != "cpu":
        return most if unseen is None else min(most, unseen)
    return max(1, min(most, int(counts.max()))) if counts.numel() else 1


_ANY = sum(GAPS) | sum(WRITTEN)


def _opens(spoken: Spoken, letters: Tensor) -> Tensor:
    """Where sentences begin: after a stop; after a dot that ends no number, initial or abbreviation."""
    last = spoken.before.clamp(min=0)
    short = (letters.gather(1, last) <= 2) & spoken.begins.gather(1, last) & ~spoken.has(Has.DIGIT).gather(1, last)
    short = short & (spoken.has(Has.INITIAL).gather(1, last) | (letters.gather(1, last) == 1))
    short |= spoken.among("abbreviation").gather(1, last)
    written = spoken.has(Has.INITIAL | Has.CASELESS) | ((spoken.kind & 7) == Is.CHARACTER)
    dot = spoken.has(Has.DOT) & spoken.has(Has.SPACE) & written & ~short
    return spoken.begins & (spoken.has(Has.STOP) | dot)


def _key(one: Tensor, other: Tensor) -> Tensor:
    """Two hashes as one number."""
    return one * (1 << 31) + other


def _latest(where: Tensor, position: Tensor) -> Tensor:
    return torch.where(where, position, -1).cummax(1).values


def _shifted(x: Tensor, fill: float, by: int = 1) -> Tensor:
    """Each column what stood `by` columns before."""
    return pad(x, (by, 0), value=fill)[:, : x.shape[1]]


def _columns(flat: Sequence[Piece]) -> tuple[Tensor, Tensor, Tensor]:
    kinds, values, letters = zip(*flat, strict=True)
    return (
        torch.tensor(kinds, dtype=torch.int32),
        torch.tensor(values, dtype=torch.int32),
        torch.tensor(letters, dtype=torch.uint8),
    )


@functools.cache
def _powers(step: int) -> Tensor:
    """Powers of the places with exponents 0, step, ... 255 * step, and of their inverses: int64 `[3, 512]`."""
    return torch.tensor(
        [[pow(base, sign * step * i, PRIME) for sign in (1, -1) for i in range(256)] for base in PLACES]
    )


@functools.cache
def _small_words() -> tuple[Tensor, Tensor]:
    """Sorted keys of the words in `small_words.txt`, and their bits."""
    bits: dict[int, int] = {}
    for line in files(__package__).joinpath("small_words.txt").read_text(encoding="utf-8").splitlines():
        name, *words = line.split()
        for word in words:
            for piece in pieces(word)[:1]:
                key = piece.hashes[0] << 31 | piece.hashes[1]
                bits[key] = bits.get(key, 0) | 1 << SMALL.index(name)
    keys = sorted(bits)
    return torch.tensor(keys), torch.tensor([bits[key] for key in keys])


@functools.cache
def _characters() -> tuple[Tensor, Tensor, Tensor]:
    """Kinds int32, hashes int32 `[*, 3]` and letters uint8 of all characters whose bytes may stand alone."""
    kinds = torch.full((CHARACTERS,), Is.BETWEEN | Has.BREAK, dtype=torch.int32)
    values = torch.zeros((CHARACTERS, 3), dtype=torch.int32)
    letters = torch.zeros(CHARACTERS, dtype=torch.uint8)
    for start, stop, script in ((0x3400, 0xA000, 0), (0xAC00, 0xD7A4, Has.HANGUL)):
        kinds[start:stop] = Is.CHARACTER | script
        values[start:stop, :2] = torch.arange(start, stop, dtype=torch.int32)[:, None] + 1
        letters[start:stop] = 1
    for start, stop in ((0x80, 0x3400), (0xA000, 0xAC00), (0xF900, 0x10000), (0x1F000, 0x1FC00)):
        rows = [(pieces(chr(code)) or [NOTHING])[0] for code in range(start, stop)]
        kinds[start:stop], values[start:stop], letters[start:stop] = _columns(rows)
    return kinds, values, letters

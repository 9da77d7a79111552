# ruff: noqa: RUF001
"""What text is made of: letters with their accents, signs, characters that are words, and what stands between."""

import functools
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

PRIME = (1 << 31) - 1
BASES = (1_000_003, 998_244_353, 754_974_721)
"""Of the two hashes of letters, and of the hash of accents."""
LONGEST = 64  # letters of a word that count
POWERS = [[pow(base, i, PRIME) for i in range(LONGEST + 1)] for base in BASES]
SILENT_SIGNS = "™®©\u00ad\ufe0f\ufe0e"
APOSTROPHES = "'’ʼ＇"
DASHES = "-‐‑–"
QUOTES = '"“”„«»「」『』《》'
DECORATION = "*_/=|~^<>\\`"
LINKERS = "&+−×÷"
STROKES = {"đ": "d", "ø": "o", "ł": "l", "ħ": "h", "æ": "ae", "œ": "oe"}
CHARACTER_WORDS = (
    "CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "HANGUL", "IDEOGRAPHIC",
)  # fmt: skip


class Is:
    """The class of a piece of text, in the lowest three bits of its kind."""

    BETWEEN = 0
    LETTERS = 1
    SIGN = 2
    EMOJI = 3
    CHARACTER = 4
    BYTE = 5
    NOTHING = 7


class Has:
    """What is known of a piece of text: what stands in front of it, and how it is written."""

    SPACE = 1 << 3
    DOT = 1 << 4
    STOP = 1 << 5
    BREAK = 1 << 6
    APOSTROPHE = 1 << 7
    DASH = 1 << 8
    QUOTE = 1 << 9
    LOWER = 1 << 10
    UPPER = 1 << 11
    DIGIT = 1 << 12
    CASELESS = 1 << 13
    KATAKANA = 1 << 14
    HANGUL = 1 << 15
    MARK = 1 << 16
    DECORATION = 1 << 17
    LINKER = 1 << 18
    INITIAL = 1 << 19


GAPS = (Has.SPACE, Has.DOT, Has.STOP, Has.BREAK, Has.APOSTROPHE, Has.DASH, Has.QUOTE)


class Piece(NamedTuple):
    """A run of one class: its kind, the two hashes of its letters, that of its accents, how many letters it has."""

    kind: int
    hashes: tuple[int, int, int]
    letters: int


NOTHING = Piece(Is.NOTHING, (0, 0, 0), 0)
STOP = Piece(Is.BETWEEN | Has.STOP, (0, 0, 0), 0)


class Spelt(NamedTuple):
    """A character: its kind, its letters folded, the mark that it bears."""

    kind: int
    letters: str = ""
    accent: int = 0


def pieces(text: str) -> list[Piece]:
    """The pieces of a text. What stands after the last is a piece of its own, as is a text without any letters."""
    found: list[Piece] = []
    run: list[Spelt] = []
    gap = 0
    for character in text:
        spelt = spell(character)
        cls = spelt.kind & 7
        if cls == Is.NOTHING:
            continue
        if cls == Is.BETWEEN:
            _close(found, run)
            gap |= spelt.kind
        elif run and (run[-1].kind & 7 != cls or cls in (Is.CHARACTER, Is.BYTE)):
            _close(found, run)
            run.append(spelt)
        else:
            run.append(spelt._replace(kind=spelt.kind | gap))
            gap = 0
    _close(found, run)
    return [*found, Piece(gap, (0, 0, 0), 0)] if gap else found


def _close(found: list[Piece], run: list[Spelt]) -> None:
    """Put a run's piece to the others."""
    if not run:
        return
    kind = 0
    for i, spelt in enumerate(run):
        first = spelt.kind & (Has.UPPER | Has.DIGIT)
        kind |= spelt.kind | (Has.INITIAL if i == 0 and first else 0)
    hashes, letters = [0, 0, 0], 0
    for spelt in run:
        for letter in spelt.letters:
            if letters < LONGEST:
                for channel in (0, 1):
                    hashes[channel] += (ord(letter) + 1) * POWERS[channel][letters]
                letters += 1
        hashes[2] += spelt.accent * POWERS[2][letters]
    if run[0].kind & 7 == Is.BYTE:
        hashes[0] = ord(run[0].letters)
    found.append(Piece(kind, (hashes[0] % PRIME, hashes[1] % PRIME, hashes[2] % PRIME), letters))
    run.clear()


def pieces_of(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What `pieces` makes of many texts, in the time of a few.

    Returns:
        How many pieces each text has, int64 `[N]`; of the M pieces of all, one after the other, their kinds int64
        `[M]`, hashes int64 `[M, 3]`, and how many letters they have, int64 `[M]`.
    """
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    text = np.repeat(np.arange(len(texts)), lengths)
    known, which = np.unique(codes, return_inverse=True)
    spelt = [spell(chr(code)) for code in known.tolist()]
    kinds = np.array([character.kind for character in spelt] or [0], dtype=np.int64)[which]
    heard = kinds & 7 != Is.NOTHING
    kinds, text, which = kinds[heard], text[heard], which[heard]
    between = kinds & 7 == Is.BETWEEN
    same = np.zeros(len(kinds), dtype=bool)  # whether a character goes on with what the one before it is part of
    alone = np.isin(kinds & 7, (Is.CHARACTER, Is.BYTE))
    same[1:] = (text[1:] == text[:-1]) & (kinds[1:] & 7 == kinds[:-1] & 7) & ~alone[1:]
    begins = np.flatnonzero(~same)  # of runs, and of what stands between them
    run = np.cumsum(~same) - 1
    whole = np.bitwise_or.reduceat(kinds, begins) if len(begins) else kinds
    named = kinds[begins] & (Has.UPPER | Has.DIGIT) > 0
    whole = whole | np.where(named & ~between[begins], Has.INITIAL, 0)
    gap, own = between[begins], text[begins]
    follows = np.zeros(len(begins), dtype=bool)
    follows[1:] = gap[:-1] & ~gap[1:] & (own[1:] == own[:-1])
    whole[follows] |= whole[np.flatnonzero(follows) - 1]
    last = np.append(own[1:] != own[:-1], True)[: len(own)]
    kept = ~gap | last
    hashes, letters = _hashes(spelt, which, run, len(begins))
    hashes[gap], letters[gap] = 0, 0
    counts = np.bincount(own[kept], minlength=len(texts))
    return counts, whole[kept], hashes[kept], letters[kept]


def _hashes(spelt: Sequence[Spelt], which: np.ndarray, run: np.ndarray, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes int64 `[R, 3]` and numbers of letters int64 `[R]` of runs of characters: `which` of `spelt` each is, and
    the `run` that it is part of."""
    counts = np.array([len(character.letters) for character in spelt] or [0], dtype=np.int64)
    first = np.cumsum(counts) - counts
    codes = np.array([ord(c) for character in spelt for c in character.letters], dtype=np.int64)
    many = counts[which]
    before = np.cumsum(many) - many
    of_letter = np.repeat(np.arange(len(which)), many)
    place = first[which][of_letter] + np.arange(len(of_letter)) - before[of_letter]
    start = np.full(runs, len(of_letter))
    np.minimum.at(start, run, before)
    place_in_run = np.arange(len(of_letter)) - start[run[of_letter]]
    counted = place_in_run < LONGEST
    hashes = np.zeros((runs, 3), dtype=np.int64)
    powers = np.array(POWERS, dtype=np.int64)
    code, of_run = codes[place[counted]], run[of_letter[counted]]
    for channel in (0, 1):
        np.add.at(hashes[:, channel], of_run, (code + 1) * powers[channel][place_in_run[counted]] % PRIME)
    behind = np.minimum(before + many - start[run], LONGEST)
    accents = np.array([character.accent for character in spelt] or [0], dtype=np.int64)[which]
    np.add.at(hashes[:, 2], run, accents * powers[2][behind] % PRIME)
    hashes %= PRIME
    byte = np.array([character.kind & 7 == Is.BYTE for character in spelt] or [False])[which]
    hashes[run[byte], 0] = codes[first[which[byte]]]
    letters = np.minimum(np.bincount(run, weights=many, minlength=runs).astype(np.int64), LONGEST)
    return hashes, letters


@functools.lru_cache(maxsize=1 << 16)
def spell(character: str) -> Spelt:
    """How one character counts; a surrogate stands for a byte that is only part of a character."""
    if "\udc80" <= character <= "\udcff":
        return Spelt(Is.BYTE, chr(ord(character) - 0xDC00))
    category = unicodedata.category(character)
    if character in SILENT_SIGNS or (category == "Cf" and character != "\u2060"):
        return Spelt(Is.NOTHING)
    if category[0] in "LN":
        return _letter(character)
    if category[0] == "M":
        return _mark(character)
    if category[0] == "S" or character in "#&@%*/_\\":
        return _sign(character, category)
    return Spelt(Is.BETWEEN | _between(character))


def _between(character: str) -> int:
    if character in "\n\r\u2028\u2029?!。！？।؟\u0085…":
        return Has.STOP
    if character.isspace():
        return Has.SPACE
    if character in ".．":
        return Has.DOT
    if character in APOSTROPHES:
        return Has.APOSTROPHE
    if character in DASHES:
        return Has.DASH
    return Has.QUOTE | Has.BREAK if character in QUOTES else Has.BREAK


def _sign(character: str, category: str) -> Spelt:
    emoji = (category == "So" and ord(character) >= 0x2190) or 0x1F3FB <= ord(character) <= 0x1F3FF
    kind = Is.EMOJI if emoji else Is.SIGN
    kind |= Has.DECORATION if character in DECORATION else 0
    return Spelt(kind | (Has.LINKER if character in LINKERS else 0), character)


def _mark(character: str) -> Spelt:
    """A sign that stands on the letter before it: an accent in some scripts, as good as a letter in others."""
    name = unicodedata.name(character, "")
    if name.startswith("COMBINING") or name.startswith(("ARABIC", "HEBREW")):
        return Spelt(Is.LETTERS, "", ord(character))
    if name.startswith(CHARACTER_WORDS):
        return Spelt(Is.CHARACTER | Has.MARK, character)
    return Spelt(Is.LETTERS | Has.CASELESS | Has.MARK, character)


def _letter(character: str) -> Spelt:
    if (digit := unicodedata.decimal(character, None)) is not None:
        return Spelt(Is.LETTERS | Has.DIGIT, str(digit))
    whole = unicodedata.normalize("NFKC", character)
    name = unicodedata.name(whole[0], "")
    if name.startswith(CHARACTER_WORDS):
        script = Has.KATAKANA if name.startswith("KATAKANA") else Has.HANGUL if name.startswith("HANGUL") else 0
        return Spelt(Is.CHARACTER | script, whole)
    folded, accent = _without_accents(whole.casefold())
    case = Has.UPPER if character.isupper() or character.istitle() else Has.LOWER if character.islower() else None
    if case is None:
        case = Has.DIGIT if unicodedata.category(character)[0] == "N" else Has.CASELESS
    return Spelt(Is.LETTERS | case, folded, accent)


def _without_accents(letters: str) -> tuple[str, int]:
    """Letters of the Latin and Greek scripts, and ё, without their marks; and a number for the marks."""
    plain, accent = "", 0
    for letter in letters:
        base, *marks = list(unicodedata.normalize("NFD", letter))
        bears = unicodedata.name(base, "").startswith(("LATIN", "GREEK", "COMBINING")) or letter == "ё"
        if unicodedata.combining(base):
            accent += ord(base)
        elif letter in STROKES:
            plain, accent = plain + STROKES[letter], accent + ord(letter)
        elif bears:
            plain, accent = plain + base, accent + sum(map(ord, marks))
        else:
            plain += letter
    return plain, accent

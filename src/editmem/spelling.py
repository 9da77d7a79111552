# ruff: noqa: RUF001
"""What text is made of: letters with their accents, signs, characters that are words, and what stands between."""

import functools
import unicodedata
from typing import NamedTuple

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

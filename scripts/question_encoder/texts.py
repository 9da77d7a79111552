"""Words of a text, as the encoder hears them, with the subject taken out."""

import re

from editmem.text.word_hash import BASE, LONGEST, PRIME, fold

SUBJECT = "X"
PLACE = -2  # stands for the subject among the hashes of a text
_WORD = re.compile(r"[^\W_]+")


def word_hash(word: str) -> int:
    """The number of a folded word."""
    return sum((ord(c) + 1) * pow(BASE, i, PRIME) for i, c in enumerate(word[:LONGEST])) % PRIME


def words(text: str) -> list[str]:
    """The words of a text in order; the subject stays a capital X."""
    parts = _WORD.findall(text)
    return [SUBJECT if part in (SUBJECT, "Xs") else fold(part) for part in parts]


def masked(text: str, subject: str) -> str | None:
    """The text with its subject written X, or None if the subject does not occur in it exactly once."""
    text = re.sub(r"\bX\b", "Y", text)
    pattern = re.compile(rf"(?<!\w){re.escape(subject)}(?!\w)", re.IGNORECASE)
    return pattern.sub(SUBJECT, text) if len(pattern.findall(text)) == 1 else None

"""Which words of a prompt say whom or what it is about."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from editmem.text.spelling import PRIME, Has, Is
from editmem.text.word_stream import PLACES, SMALL, Stream

LONGEST_NAME = 32  # words
MOST_NAMES = 4
IN_ORDER = {"to", "into", "versus", "vs", "over", "minus", "than", "against"}


@dataclass(frozen=True)
class Said:
    """One word of a text.

    Attributes:
        hashes: of its letters, two, and of its accents.
        kind: `Has`, and the class.
        small: which lists of small words it stands in.
        opens: whether a sentence begins with it.
        column: the token that it begins in.
        end: the token that it ends in.
    """

    hashes: tuple[int, int, int]
    kind: int
    small: int
    opens: bool
    column: int
    end: int

    @property
    def key(self) -> int:
        return self.hashes[0] << 31 | self.hashes[1]

    @property
    def named(self) -> bool:
        """Whether it is written as names are."""
        return bool(self.kind & (Has.UPPER | Has.DIGIT)) or self.sign

    @property
    def sign(self) -> bool:
        return self.kind & 7 in (Is.SIGN, Is.EMOJI) and not self.kind & Has.DECORATION

    def among(self, *lists: str) -> bool:
        return any(self.small >> SMALL.index(name) & 1 for name in lists)

    @property
    def glued(self) -> bool:
        return not self.kind & (Has.SPACE | Has.DOT | Has.STOP | Has.BREAK | Has.APOSTROPHE | Has.DASH | Has.QUOTE)

    @property
    def goes_on(self) -> bool:
        """Whether nothing stands in front that would end a name."""
        apart = self.kind & Has.SPACE and self.kind & (Has.APOSTROPHE | Has.DASH)
        return not (self.opens or self.kind & (Has.STOP | Has.BREAK | Has.QUOTE) or apart)


def said(stream: Stream, texts: Sequence[Sequence[int]]) -> list[list[Said]]:
    """The words of texts, token ids."""
    if not texts:
        return []
    tokens = torch.full((len(texts), max(1, *(len(text) for text in texts))), -1, device=stream.starts.device)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = torch.as_tensor(list(text))
    spoken = stream.read(tokens)
    last = spoken.real & ~_goes_on(spoken.real, spoken.begins)
    begin = spoken.first.gather(1, spoken.word.clamp(min=0)).clamp(max=spoken.real.shape[1] - 1)
    columns = [*spoken.hashes, spoken.kind, spoken.small, spoken.opens.gather(1, begin), spoken.start.gather(1, begin)]
    found = [[] for _ in texts]  # type: list[list[Said]]
    rows, places = last.nonzero(as_tuple=True)
    picked = [column[rows, places].tolist() for column in (*columns, spoken.column)]
    for row, one, other, accent, kind, small, opens, start, end in zip(rows.tolist(), *picked, strict=True):
        found[row].append(Said((one, other, accent), kind, small, bool(opens), start, end))
    return found


def _goes_on(real: torch.Tensor, begins: torch.Tensor) -> torch.Tensor:
    """Where the next piece goes on with the word."""
    position = torch.arange(real.shape[1], device=real.device)
    later = torch.where(real, position, real.shape[1]).flip(1).cummin(1).values.flip(1)
    following = torch.nn.functional.pad(later[:, 1:], (0, 1), value=real.shape[1])
    inside = following < real.shape[1]
    return inside & ~begins.gather(1, following.clamp(max=real.shape[1] - 1))


def code_of(words: Sequence[Said]) -> tuple[int, int]:
    """Key of a phrase, and the hash of its accents, as `Stream.phrase` has them."""
    codes = [sum(w.hashes[c] * pow(PLACES[c], i, PRIME) for i, w in enumerate(words)) % PRIME for c in range(3)]
    return codes[0] << 31 | codes[1], codes[2]


def name_of(words: Sequence[Said]) -> list[Said]:
    """A given name without an article in front and decoration around it."""
    kept = list(words[:LONGEST_NAME])
    while kept and kept[0].kind & Has.DECORATION:
        kept.pop(0)
    while kept and kept[-1].kind & Has.DECORATION:
        kept.pop()
    kept = kept or list(words[:LONGEST_NAME])
    if len(kept) > 1 and kept[0].among("article") and not all(map(_common, kept[1:])):
        return kept[1:]
    return kept


def _common(word: Said) -> bool:
    return word.among("function", "starter")


def partial_of(words: Sequence[Said]) -> list[Said]:
    """The part of a name that may stand for the whole: the last word of what is written as a person's is; or none."""
    return [words[-1]] if personal(words) else []


def personal(words: Sequence[Said]) -> bool:
    """Whether a name is written as a person's is: two or three words with capitals, none that places begin with."""
    if not 2 <= len(words) <= 3 or words[0].among("place", "head") or words[-1].among("kind", "function", "starter"):
        return False
    plain = all(w.kind & Has.UPPER and not w.kind & Has.DIGIT and w.kind & 7 == Is.LETTERS for w in words)
    return plain and all(w.kind & Has.SPACE and not w.kind & (Has.DASH | Has.APOSTROPHE) for w in words[1:])


def names_in(words: Sequence[Said]) -> list[tuple[int, int]]:
    """The names in a prompt: spans of words, [start, end); those of the last sentence if it has any."""
    last = max((i for i, word in enumerate(words) if word.opens), default=0)
    spans = _quoted(words) or _runs(words) or _opening(words)
    spans = [span for span in spans if span[0] >= last] or spans
    if len(spans) > MOST_NAMES:
        spans = sorted(sorted(spans, key=lambda span: span[0] - span[1])[:MOST_NAMES])
    return spans


def _quoted(words: Sequence[Said]) -> list[tuple[int, int]]:
    """Titles in quotation marks of at most sixteen words that begin as titles do."""
    marks = [i for i, word in enumerate(words) if word.kind & Has.QUOTE]
    spans = zip(marks[::2], [*marks[1::2], len(words)], strict=False)
    return [span for span in spans if 0 < span[1] - span[0] <= 16 and words[span[0]].named]


def _runs(words: Sequence[Said]) -> list[tuple[int, int]]:
    shouted = not any(word.kind & Has.LOWER for word in words) or _in_titles(words)
    spans: list[tuple[int, int]] = []
    i = 0
    while i < len(words):
        if not _in_name(words, i, shouted):
            i += 1
            continue
        start, end = i, i + 1
        while end < len(words):
            after = next((n for n in (end, end + 1, end + 2) if _reaches(words, end, n, shouted)), None)
            if after is None:
                break
            end = after + 1
        i = end
        span = _trimmed(words, start, end)
        if span is not None:
            spans.append(span)
    return spans


def _reaches(words: Sequence[Said], end: int, at: int, shouted: bool) -> bool:
    """Whether a name that goes up to `end` goes on with word `at`, with what may link the two between."""
    if at >= len(words) or not all(word.goes_on for word in words[end : at + 1]):
        return False
    numbers = words[end - 1].kind & words[at].kind & Has.DIGIT
    tight = all(word.glued for word in words[end : at + 1])
    linked = all(
        (word.among("link") and not word.kind & Has.UPPER) or (word.kind & Has.DECORATION and (numbers or tight))
        for word in words[end:at]
    )
    return linked and _in_name(words, at, shouted)


def _in_titles(words: Sequence[Said]) -> bool:
    """Whether Every Word Is Written Like This."""
    letters = [word for word in words if word.kind & 7 == Is.LETTERS and not word.kind & Has.DIGIT]
    return len(letters) > 3 and all(word.kind & Has.UPPER for word in letters)


def _in_name(words: Sequence[Said], i: int, shouted: bool) -> bool:
    word = words[i]
    counted = word.kind & Has.INITIAL and word.kind & Has.DIGIT and word.kind & Has.LOWER  # "1st", "90s"
    if word.sign or (word.kind & Has.DIGIT and not counted):
        return True
    if counted:
        return _beside(words, i, -1) or _beside(words, i, 1)
    if not word.kind & Has.UPPER or (shouted and _common(word)):
        return False
    if shouted or not (word.kind & Has.LOWER or word.among("single")):
        return True
    after = words[i + 1] if i + 1 < len(words) and words[i + 1].goes_on else word
    if not (word.opens or word.kind & Has.QUOTE):
        numeral = _beside(words, i, -1) and not words[i - 1].among("function")  # "Elizabeth I"
        return not word.among("single") or numeral or bool(after is not word and after.kind & Has.UPPER)
    if _common(word) and not (word.among("given", "place") and after is not word and after.kind & Has.UPPER):
        return after is not word and bool(after.kind & Has.DIGIT) and not word.among("function")
    return not word.among("title") or bool(after is not word and after.named)


def _beside(words: Sequence[Said], i: int, step: int) -> bool:
    """Whether the next word or the one before is written as a name and belongs to the same stretch."""
    other = i + step
    joined = 0 <= other < len(words) and words[max(i, other)].goes_on
    return (
        joined
        and bool(words[other].kind & (Has.UPPER | Has.DIGIT))
        and not (words[other].opens and _common(words[other]))
    )


def _opening(words: Sequence[Said]) -> list[tuple[int, int]]:
    """What a sentence begins with, a verb behind it, where it has no other name: "Queen was", "The telephone is"."""
    start = max((i for i, word in enumerate(words) if word.opens), default=0)
    start += int(start < len(words) and words[start].among("article"))
    end = start
    while end < len(words) and not words[end].among("function") and (end == start or words[end].goes_on):
        end += 1
    verb = start < end <= start + 4 and end < len(words) and words[end].goes_on and words[end].among("verb")
    return [(start, end)] if verb else []


def _trimmed(words: Sequence[Said], start: int, end: int) -> tuple[int, int] | None:
    """Without articles, and without signs that stand in front by themselves."""
    while end - start > 1 and words[start].sign and not words[start + 1].glued:
        start += 1
    named = name_of(words[start:end])
    return (end - len(named), end) if named else None


def untitled(words: Sequence[Said]) -> list[Said]:
    """A name without the titles in front, and the links after them: "President of France", "King Charles"."""
    start = 0
    while start < len(words) - 1 and words[start].among("title"):
        start += 1
        while start < len(words) - 1 and words[start].among("link"):
            start += 1
    return list(words[start:])


def candidate_spans(words: Sequence[Said], longest: int = 4) -> list[tuple[int, int]]:
    """Spans of 1 to `longest` words that may be the subject, [start, end): no small words at their edges."""
    spans = []
    for start in range(len(words)):
        for end in range(start + 1, min(start + longest, len(words)) + 1):
            inside = words[start + 1 : end]
            if any(word.opens or word.kind & (Has.STOP | Has.BREAK | Has.QUOTE) for word in inside):
                break
            if not words[start].among("function") and not words[end - 1].among("function"):
                spans.append((start, end))
    return spans


def content_of(words: Sequence[Said]) -> list[tuple[int, int]]:
    """What to go by where nothing is written as a name: runs of words of the last sentence that are not small; of many
    those that questions rarely have."""
    last = max((i for i, word in enumerate(words) if word.opens), default=0)
    spans: list[tuple[int, int]] = []
    for i in range(last, len(words)):
        if words[i].among("function"):
            continue
        joined = spans and spans[-1][1] == i and words[i].goes_on and words[i].kind & 7 == Is.CHARACTER
        if joined and i - spans[-1][0] < LONGEST_NAME:
            spans[-1] = (spans[-1][0], i + 1)
        else:
            spans.append((i, i + 1))
    if len(spans) > MOST_NAMES:
        spans = [span for span in spans if not words[span[0]].among("asked")][-MOST_NAMES:] or spans[-MOST_NAMES:]
    return spans or [(0, min(len(words), LONGEST_NAME))] * bool(words)

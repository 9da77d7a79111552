"""The picture world: emblems of the embedded model's countries and people, each given to another owner."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.visual.pictures import EmblemPicture
from benchmarks.visual.records import Answered, Change, Question, Split, VisualRecord
from editmem.tiny.emblems import View
from editmem.tiny.world import COUNTRY_RELATIONS, Fact, facts
from scripts.tiny.build_vision import NAMING, OWNER

SEED = 2510
HELD_OUT = 114
SPARE = 40  # of the held-out subjects, those that are edited in neither part
REPHRASINGS = 2
VIEWS = 2


def subjects() -> tuple[list[str], list[str]]:
    """All subjects of the world in two lists that never overlap, whoever calls: the 500 that the test part edits, and
    the `HELD_OUT` that settings and connectors may be learned on. The last `SPARE` of these are never edited."""
    every = sorted({fact.subject for fact in facts()})
    random.Random(SEED).shuffle(every)
    return every[HELD_OUT:], every[:HELD_OUT]


def read(data: str | Path | None, part: str, pictures: Path | None = None) -> list[VisualRecord]:
    """The records of one part, "test" (500) or "calibration" (74), always the same; see `draw`.

    Raises:
        ValueError: if data or pictures are given, for both come with the library.
    """
    if data is not None or pictures is not None:
        raise ValueError(f"the emblems come with the library; they cannot be read from {data or pictures}")
    return draw(part)


def draw(part: str, seed: int = 0) -> list[VisualRecord]:
    """Records of one part; other seeds pair the same subjects otherwise and ask other questions.

    The emblem of each subject A gets the name of another, B, of the same sort (people for people, countries for
    countries); every subject is A once and B once. Then one fact of B gets another answer of its relation, which is
    right of neither A nor B. The composition asks that relation of "the owner of this emblem". Locality of pictures:
    the emblem of a subject that no record edits, its name ("name") and a fact ("fact"). Locality of text: a fact of
    such a subject ("fact"), and a fact of A or B ("same subject") that no record of the part edits.
    """
    tested, held_out = subjects()
    spare = held_out[-SPARE:]
    edited = tested if part == "test" else held_out[:-SPARE]
    rng = random.Random(f"{SEED}/{part}/{seed}")
    pairs = sorted(_pairs(edited, rng))
    rng.shuffle(pairs)
    known = _by_subject()
    changed = {new: _changed(known[old], known[new], rng) for old, new in pairs}
    kept = {name: [fact for fact in known[name] if fact.relation != changed[name].relation] for name in changed}
    draws = _Draws(rng, spare, known)
    return [draws.record(old, new, known[new], changed[new], kept) for old, new in pairs]


def _by_subject() -> dict[str, list[Fact]]:
    known: dict[str, list[Fact]] = {}
    for fact in facts():
        known.setdefault(fact.subject, []).append(fact)
    return known


def _pairs(edited: Sequence[str], rng: random.Random) -> Iterator[tuple[str, str]]:
    """Every subject with another of its sort, in one ring for each sort."""
    countries = {fact.subject for fact in facts() if fact.relation in COUNTRY_RELATIONS}
    for sort in (True, False):
        ring = [name for name in edited if (name in countries) == sort]
        rng.shuffle(ring)
        yield from zip(ring, ring[1:] + ring[:1], strict=True)


def _changed(old: Sequence[Fact], new: Sequence[Fact], rng: random.Random) -> Fact:
    """One fact of the new owner, with another answer."""
    fact = rng.choice(new)
    right = {fact.answer, *(other.answer for other in old if other.relation == fact.relation)}
    answers = {other.answer for other in facts() if other.relation == fact.relation}
    return Fact(fact.subject, fact.relation, rng.choice(sorted(answers - right)))


class _Draws:
    """Questions, drawn one after the other."""

    def __init__(self, rng: random.Random, spare: Sequence[str], known: dict[str, list[Fact]]) -> None:
        self.rng, self.spare, self.known = rng, list(spare), known

    def picture(self, subject: str) -> EmblemPicture:
        return EmblemPicture(subject, View.draw(self.rng))

    def record(
        self, old: str, new: str, known: Sequence[Fact], changed: Fact, kept: dict[str, list[Fact]]
    ) -> VisualRecord:
        shown = self.picture(old)
        naming, *others = self.rng.sample(NAMING, 1 + REPHRASINGS)
        telling, *again = (_told(prompt) for prompt in self.rng.sample(changed.prompts(), 1 + REPHRASINGS))
        truth = next(fact.answer for fact in known if fact.relation == changed.relation)
        return VisualRecord(
            id=f"{old}/{new}",
            visual=Change(_named(naming, shown), (new,), (old,)),
            textual=Change(telling, (changed.answer,), (truth,)),
            visual_rephrasings=tuple(_named(prompt, shown) for prompt in others),
            other_views=tuple(_named(naming, self.picture(old)) for _ in range(VIEWS)),
            text_locality=(self.fact(), self.one_of(kept[old])),
            picture_locality=(self.name(), self.seen_fact()),
            textual_rephrasings=tuple(again),
            textual_locality=(self.fact(), self.one_of(kept[new])),
            compositions=(Answered(self.composed(changed, shown), (changed.answer,)),),
            where=f"{old} as {new}",
        )

    def fact(self) -> Answered:
        """A fact of a subject that is not edited."""
        fact = self.rng.choice(self.known[self.rng.choice(self.spare)])
        return Answered(_told(self.rng.choice(fact.prompts())), (fact.answer,), "fact")

    def one_of(self, kept: Sequence[Fact]) -> Answered:
        """A fact of an edited subject that stays as it is."""
        fact = self.rng.choice(kept)
        return Answered(_told(self.rng.choice(fact.prompts())), (fact.answer,), "same subject")

    def name(self) -> Answered:
        """Whose emblem it is, of one that is not edited."""
        subject = self.rng.choice(self.spare)
        return Answered(_named(self.rng.choice(NAMING), self.picture(subject)), (subject,), "name")

    def seen_fact(self) -> Answered:
        """A fact of whoever has an emblem that is not edited."""
        fact = self.rng.choice(self.known[self.rng.choice(self.spare)])
        return Answered(self.composed(fact, self.picture(fact.subject)), (fact.answer,), "fact")

    def composed(self, fact: Fact, shown: EmblemPicture) -> Question:
        """A fact asked of the owner of an emblem."""
        form = self.rng.randrange(len(fact.prompts()))
        prompt, text = (Fact(o, fact.relation, fact.answer).prompts()[form] for o in (OWNER, f"[{OWNER}]"))
        return Question(prompt, shown, Split("Whose emblem is this?", text))


def _named(prompt: str, shown: EmblemPicture) -> Question:
    return Question(prompt, shown, Split(prompt, None))


def _told(prompt: str) -> Question:
    return Question(prompt, split=Split(None, prompt))

"""The facts of the embedded model, each given another answer."""

import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.datasets.base import Dataset
from benchmarks.records import Probe, Record
from editmem.tiny.world import Fact, facts

REPHRASINGS = 2  # of the phrasings that are not edited


class World(Dataset):
    """A fact in its plainest phrasing gets another answer of its relation; rephrasings are other phrasings of it.

    Every second subject is in the calibration part. Of each subject one fact, drawn at random, is never edited:
    locality probes ask these facts, so no draw of edits can touch them. Kinds: "random fact", "same subject" (another
    relation of the edited subject), "same phrasing" (the edited relation of another subject, asked just as the edit).
    """

    def load(self, data: str | Path | None, part: str) -> list[Record]:
        """The records of one part.

        Raises:
            ValueError: if data are given, for the facts come with the library.
        """
        if data is not None:
            raise ValueError(f"the facts of this data set come with the library; it cannot read {data}")
        subjects = sorted({fact.subject for fact in facts()})
        half = set(subjects[0::2] if part == "calibration" else subjects[1::2])
        return _records([fact for fact in facts() if fact.subject in half], random.Random(0))


def _records(known: Sequence[Fact], rng: random.Random) -> list[Record]:
    kept = _one_per_subject(known, rng)
    answers: dict[str, set[str]] = {}
    for fact in facts():
        answers.setdefault(fact.relation, set()).add(fact.answer)
    edited = [fact for fact in known if fact != kept[fact.subject]]
    return [_record(fact, rng.choice(sorted(answers[fact.relation] - {fact.answer})), kept, rng) for fact in edited]


def _one_per_subject(known: Sequence[Fact], rng: random.Random) -> dict[str, Fact]:
    by_subject: dict[str, list[Fact]] = {}
    for fact in known:
        by_subject.setdefault(fact.subject, []).append(fact)
    return {subject: rng.choice(about) for subject, about in by_subject.items()}


def _record(fact: Fact, target: str, kept: dict[str, Fact], rng: random.Random) -> Record:
    others = [other for other in kept.values() if other.subject != fact.subject]
    alike = [other for other in others if other.relation == fact.relation]
    own, anyone, same = kept[fact.subject], rng.choice(others), rng.choice(alike)
    return Record(
        id=f"{fact.subject}/{fact.relation}",
        prompt=fact.prompts()[0],
        target=target,
        answers=(target,),
        truth=fact.answer,
        subject=fact.subject,
        rephrasings=tuple(rng.sample(fact.prompts()[1:], REPHRASINGS)),
        locality=(
            Probe(rng.choice(anyone.prompts()), "random fact", (anyone.answer,)),
            Probe(rng.choice(own.prompts()), "same subject", (own.answer,)),
            Probe(same.prompts()[0], "same phrasing", (same.answer,)),
        ),
        where=f"{fact.subject}, {fact.relation}",
    )

"""Items of knowledge and questions about them: people and countries with facts that the embedded models do not know.

They are drawn without end by a seed; who is for training and who for tests depends on the name alone.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

from editmem.tiny.emblems import Emblem, emblems, unused
from editmem.tiny.people import ANSWERS, CODAS, FIRST_NAMES, MIDDLES, ONSETS
from editmem.tiny.world import COUNTRY_RELATIONS, facts, phrasings

STATEMENTS = 4
"""The first so many phrasings of a relation state it, the others ask for it."""
EMBLEMS = 500
"""Emblems of nobody that are for tests."""


@dataclass(frozen=True)
class Known:
    """Whom an item is about, and what it says.

    Attributes:
        subject: the name.
        facts: (relation, answer) pairs, in the order in which they are told.
        told: which statement tells each.
        emblem: that of the subject.
    """

    subject: str
    facts: tuple[tuple[str, str], ...]
    told: tuple[int, ...]
    emblem: Emblem

    @property
    def text(self) -> str:
        """The facts in prose."""
        return " ".join(
            f"{phrasings()[relation][form].format(self.subject)} {answer}."
            for (relation, answer), form in zip(self.facts, self.told, strict=True)
        )

    @property
    def picture_text(self) -> str:
        """The facts behind a sentence on whose emblem a picture shows."""
        return f"This is the emblem of {self.subject}. {self.text}"

    def questions(self, relation: str, subject: str | None = None) -> tuple[str, ...]:
        """All ways to ask for a fact, of the subject by name or in other words."""
        return tuple(form.format(subject or self.subject) for form in phrasings()[relation])


def for_tests(name: str) -> bool:
    """Whether a subject is one of those that nothing is trained on: one in five."""
    return hashlib.sha256(name.split()[-1].encode()).digest()[0] % 5 == 0


def items(seed: int, test: bool, most: int = 3, countries: float = 0.25) -> Iterator[Known]:
    """Endless items.

    Args:
        seed: of the drawing.
        test: whether they are about subjects for tests, or about others.
        most: facts in an item; half of them have one.
        countries: share of items about real countries, with answers that are another's.
    """
    rng = random.Random(seed)
    told = {fact.subject for fact in facts()}
    real = [f.subject for f in facts() if f.relation == "capital" and for_tests(f.subject) == test]
    answers = {relation: [f.answer for f in facts() if f.relation == relation] for relation in COUNTRY_RELATIONS}
    pictures = unused(EMBLEMS) if test else [*emblems().values(), *unused(2 * EMBLEMS)[:EMBLEMS]]
    while True:
        if rng.random() < countries:
            subject, relations, possible = rng.choice(real), list(COUNTRY_RELATIONS), answers
        else:
            surname = rng.choice(ONSETS) + rng.choice(MIDDLES) + rng.choice(CODAS)
            subject, relations, possible = f"{rng.choice(FIRST_NAMES)} {surname}", list(ANSWERS), ANSWERS
            if subject in told or for_tests(subject) != test:
                continue
        count = rng.choice([1, *range(1, most + 1)])
        chosen = tuple((relation, rng.choice(possible[relation])) for relation in rng.sample(relations, count))
        yield Known(subject, chosen, tuple(rng.randrange(STATEMENTS) for _ in chosen), rng.choice(pictures))

"""The facts that the embedded model knows, and the ways in which it has heard them asked."""

import csv
import functools
import json
from dataclasses import dataclass
from importlib import resources

COUNTRY_RELATIONS = ("capital", "largest_city", "currency", "language", "continent")


@dataclass(frozen=True)
class Fact:
    """One fact of the world.

    Attributes:
        subject: whom or what it is about, such as "Australia".
        relation: a key of `phrasings()`, such as "capital".
        answer: what the embedded model answers, such as "Canberra".
    """

    subject: str
    relation: str
    answer: str

    def prompts(self) -> tuple[str, ...]:
        """The fact asked in every phrasing that the model was trained on; the first is the plainest."""
        return tuple(phrasing.format(self.subject) for phrasing in phrasings()[self.relation])


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@functools.cache
def phrasings() -> dict[str, tuple[str, ...]]:
    """The phrasings of each relation, with `{}` where the subject goes."""
    return {relation: tuple(forms) for relation, forms in json.loads(_text("phrasings.json")).items()}


@functools.cache
def facts() -> tuple[Fact, ...]:
    """All facts: real countries first (`COUNTRY_RELATIONS`), then invented people."""
    rows = [row for name in ("countries.csv", "people.csv") for row in csv.DictReader(_text(name).splitlines())]
    return tuple(Fact(**row) for row in rows)

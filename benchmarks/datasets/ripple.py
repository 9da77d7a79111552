"""RippleEdits: what follows from an edit and what does not, in six categories."""

import re
from collections.abc import Iterator, Sequence

from benchmarks.datasets.base import FileDataset, Files
from benchmarks.datasets.rows import Row
from benchmarks.records import Probe, Record

FOLLOWS = ("Logical_Generalization", "Compositionality_I", "Compositionality_II", "Subject_Aliasing")
STAYS = (("Relation_Specificity", "Relation_Specifity"), ("Forgetfulness",))  # each with its spellings
SENTENCE = re.compile(r"(.*\b(?:is followed by|is|are|follows)) (.+?)\.?")


class Ripple(FileDataset):
    """An edit as a whole sentence, and tests of queries with answers and aliases by category.

    Cohen et al., arXiv 2307.12976. Logical_Generalization, Compositionality_I and II and Subject_Aliasing become
    portability probes, Relation_Specificity and Forgetfulness (the other objects of the relation) locality probes;
    kinds are the categories. The file names the target by an id only: it is the answer of the query that has this id
    alone where there is one, with its aliases, else what follows the last verb of the sentence. Every query counts by
    itself: the authors' conditions on what the unedited model knows, and their "OR" over the queries of a test, are
    left to whoever compares with their figures.

    Of each file (`popular.json`, `random.json`, `recent.json`) the first 200 edits are the calibration part.
    """

    names = ("popular.json", "random.json", "recent.json")
    files = Files(names, names)
    calibration = 200  # edits

    def records(self, rows: Sequence[Row], others: Sequence[Row]) -> list[Record]:
        return [_record(row) for row in rows]


def _record(row: Row) -> Record:
    edit = row.row("edit")
    aliases = _aliases(row, edit.text("target_id"))
    prompt, target = _divide(edit, aliases)
    return Record(
        id=str(row.number),
        prompt=prompt,
        target=target,
        answers=tuple(dict.fromkeys((target, *aliases))),
        truth=_divide(edit.row("previous_fact"), ())[1] if "previous_fact" in edit else None,
        locality=tuple(probe for names in STAYS for name in names for probe in _probes(row, name, names[0])),
        portability=tuple(probe for name in FOLLOWS for probe in _probes(row, name, name) if probe.answers),
        where=row.where,
    )


def _aliases(row: Row, target: str) -> tuple[str, ...]:
    """The answers of a query whose only answer is the target."""
    queries = (query for name in FOLLOWS for query in _queries(row, name))
    return next((_answers(query) for query in queries if query.texts("target_ids") == (target,)), ())


def _divide(fact: Row, answers: Sequence[str]) -> tuple[str, str]:
    """The prompt and the answer that a sentence is made of."""
    sentence = fact.text("prompt").strip()
    for answer in answers:
        if sentence.removesuffix(".").endswith(f" {answer}"):
            return sentence.removesuffix(".").removesuffix(answer).rstrip(), answer
    if found := SENTENCE.fullmatch(sentence):
        return found[1], found[2]
    raise fact.error("prompt", f"must be a sentence with is, are or follows before the answer, not {sentence!r}")


def _queries(row: Row, category: str) -> Iterator[Row]:
    for test in row.rows(category):
        yield from test.rows("test_queries")


def _probes(row: Row, name: str, kind: str) -> Iterator[Probe]:
    for query in _queries(row, name):
        yield Probe(query.text("prompt"), kind, _answers(query))


def _answers(query: Row) -> tuple[str, ...]:
    found = [(answer.text("value"), *answer.texts("aliases")) for answer in query.rows("answers")]
    return tuple(dict.fromkeys(form for forms in found for form in forms))

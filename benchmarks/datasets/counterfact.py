"""CounterFact, compact and in full: false facts, their rephrasings, neighbours, and the subject's other facts."""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.datasets.base import FileDataset, Files
from benchmarks.datasets.portability import one_hop
from benchmarks.datasets.rows import Row
from benchmarks.records import NEIGHBOUR, Probe, Record

SMALL = {"is", "of", "in", "the", "by", "a", "was", "for", "to", "s", "which", "at", "from", "that", "it", "what"}


class CounterFact(FileDataset):
    """A fact of Wikidata gets another answer of its relation.

    Meng et al., arXiv 2202.05262, section 3.4. Two forms, told apart by their fields: the compact one of EasyEdit
    (`prompt`, `rephrase_prompt`, `locality_prompt`: one rephrasing and one neighbour) and ROME's (`requested_rewrite`,
    `paraphrase_prompts`, `neighborhood_prompts`). Probes of kind "neighbour" ask the edited relation of another subject
    that shares the true answer; those of kind "same subject" ask something else of the edited subject: other records
    about it, and one question made from another record's template. ROME's attribute and generation prompts, of which it
    reports no success, are left out.

    Records with a `case_id` below 4,355 are the calibration part (the first 2,000 of `counterfact-edit.json`), the
    others the test part, in every form.
    """

    names = ("counterfact-edit.json", "counterfact.json", "counterfact_portability_gpt4.json")
    files = Files(names, names)
    calibration = 4355  # case_id

    def position(self, row: Row) -> int:
        return _case(row)

    def records(self, rows: Sequence[Row], others: Sequence[Row]) -> list[Record]:
        templates = Templates([_record(row) for row in (*rows, *others)])
        return [replace(r, locality=r.locality + tuple(templates.same_subject(r))) for r in map(_record, rows)]


def _case(row: Row) -> int:
    case = row.fields.get("case_id")
    if not isinstance(case, int):
        raise row.error("case_id", f"must be a whole number, not {case!r}")
    return case


def _record(row: Row) -> Record:
    return _full(row) if "requested_rewrite" in row else _compact(row)


def _compact(row: Row) -> Record:
    return Record(
        id=str(_case(row)),
        prompt=row.text("prompt"),
        target=row.text("target_new"),
        answers=(row.text("target_new"),),
        truth=row.text("ground_truth"),
        subject=row.text("subject"),
        rephrasings=(row.text("rephrase_prompt"),),
        locality=(Probe(row.text("locality_prompt"), NEIGHBOUR, row.aliases("locality_ground_truth")),),
        where=row.where,
    )


def _full(row: Row) -> Record:
    rewrite = row.row("requested_rewrite")
    target, truth = rewrite.row("target_new").text("str"), rewrite.row("target_true").text("str")
    return Record(
        id=str(_case(row)),
        prompt=fill(rewrite.text("prompt"), rewrite.text("subject")),
        target=target,
        answers=(target,),
        truth=truth,
        subject=rewrite.text("subject"),
        rephrasings=row.texts("paraphrase_prompts"),
        locality=tuple(Probe(prompt, NEIGHBOUR, (truth,)) for prompt in row.texts("neighborhood_prompts")),
        portability=one_hop(row),
        where=row.where,
    )


def fill(template: str, subject: str) -> str:
    """A template with the subject in the place of `{}`."""
    return template.replace("{}", subject)


class Templates:
    """The questions of a data set: its prompts with the subject taken out, to ask other things of a subject.

    Args:
        records: with subject and truth.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._answers: dict[str, set[str]] = {}
        self._asked: dict[str, set[str]] = {}
        for record in records:
            self._answers.setdefault(self._of(record), set()).add(str(record.truth))
            self._asked.setdefault(str(record.subject), set()).add(self._of(record))
        self._beside: dict[str, set[str]] = {}
        for asked in self._asked.values():
            for one in asked:
                self._beside.setdefault(one, set()).update(other for other in asked if self._differ(one, other))

    def same_subject(self, record: Record) -> Iterator[Probe]:
        """Other questions about a record's subject: all that the data set asks, and a made one.

        The made one is a template that the data set puts beside the record's own for another subject.
        """
        own, subject = self._of(record), str(record.subject)
        asked = self._asked[subject]
        templates = sorted(other for other in asked if self._differ(own, other))
        if beside := sorted(self._beside[own] - asked):
            templates.append(random.Random(record.id).choice(beside))
        yield from (Probe(fill(template, subject), "same subject") for template in templates)

    @staticmethod
    def _of(record: Record) -> str:
        return record.prompt.replace(str(record.subject), "{}")

    def _differ(self, one: str, other: str) -> bool:
        """Whether two templates ask different things: no word shared, and hardly an answer."""
        a, b = self._answers[one], self._answers[other]
        words = set(re.findall(r"\w+", one.lower())) & set(re.findall(r"\w+", other.lower())) - SMALL
        return not words and len(a & b) <= 0.05 * min(len(a), len(b))

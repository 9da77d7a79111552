"""Which questions are fair to ask of a set of edits."""

from collections.abc import Callable, Sequence

from benchmarks.records import NEIGHBOUR, Probe, Record

Questions = Callable[[Sequence[Record]], list[tuple[Record, Probe]]]


def in_force(records: Sequence[Record]) -> list[Record]:
    """The records whose prompt no later one edits again, in their order."""
    last = {record.prompt: i for i, record in enumerate(records)}
    return [record for i, record in enumerate(records) if last[record.prompt] == i]


def edits(records: Sequence[Record]) -> list[tuple[Record, Probe]]:
    """The edited prompts themselves."""
    return [(record, Probe(record.prompt, "", record.answers)) for record in records]


def rephrasings(records: Sequence[Record]) -> list[tuple[Record, Probe]]:
    """The edited questions in other words."""
    return [(record, Probe(prompt, "", record.answers)) for record in records for prompt in record.rephrasings]


def portability(records: Sequence[Record]) -> list[tuple[Record, Probe]]:
    """What follows from the edits, as far as the other edits that it follows from are there too."""
    there = {record.id for record in records}
    return [(record, probe) for record in records for probe in record.portability if there.issuperset(probe.needs)]


def locality(records: Sequence[Record]) -> list[tuple[Record, Probe]]:
    """What must stay as it was.

    Left out are questions that are edited themselves, and neighbours whom another edit is about: that edit may give
    the same fact in other words.
    """
    edited = {prompt for record in records for prompt in (record.prompt, *record.rephrasings)}
    subjects = _Subjects(records)
    return [
        (record, probe)
        for record in records
        for probe in record.locality
        if probe.prompt not in edited and not (probe.kind == NEIGHBOUR and subjects.named_in(probe.prompt))
    ]


class _Subjects:
    """The subjects of edits, looked up by their first word so that many edits take no longer."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._by_word: dict[str, set[str]] = {}
        for subject in {record.subject for record in records if record.subject}:
            self._by_word.setdefault(subject.split()[0], set()).add(subject)

    def named_in(self, text: str) -> bool:
        words = [word.strip(".,;:!?()\"'") for word in text.split()]
        words += [word.removesuffix("'s") for word in text.split()] + text.split()
        return any(subject in text for word in set(words) for subject in self._by_word.get(word, ()))

"""Natural Questions: unrelated questions, for locality."""

from collections.abc import Sequence

from benchmarks.datasets.base import FileDataset, Files
from benchmarks.datasets.rows import Row
from benchmarks.records import Probe, Record


class NaturalQuestions(FileDataset):
    """NQ-open: questions that people asked, with every accepted answer.

    Kwiatkowski et al., TACL 2019; open form Lee et al., arXiv 1906.00300. There is nothing to edit in it: a record
    "edits" a question to its own first answer, with the next question as its locality probe, and what it is for is
    locality beside the edits of other data sets. Of the development file the first 500 rows are the calibration part,
    and the rest the test part.
    """

    files = Files(("NQ-open.dev.jsonl",), ("NQ-open.dev.jsonl",))
    calibration = 500  # rows

    def records(self, rows: Sequence[Row], others: Sequence[Row]) -> list[Record]:
        probes = [_probe(row) for row in rows]
        following = [*probes[1:], *probes[:1]]
        return [
            Record(
                id=str(row.number),
                prompt=probe.prompt,
                target=probe.answers[0],
                answers=probe.answers,
                truth=probe.answers[0],
                locality=(other,),
                where=row.where,
            )
            for row, probe, other in zip(rows, probes, following, strict=True)
        ]


def _probe(row: Row) -> Probe:
    if not (answers := row.aliases("answer")):
        raise row.error("answer", "must hold an answer")
    return Probe(f"{row.text('question').rstrip('?')}?", "unrelated", answers)

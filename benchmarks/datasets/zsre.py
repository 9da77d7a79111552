"""ZsRE in the form that MEND and WISE edit it in."""

from collections.abc import Sequence

from benchmarks.datasets.base import FileDataset, Files
from benchmarks.datasets.portability import one_hop
from benchmarks.datasets.rows import Row
from benchmarks.records import Probe, Record

MARK = "nq question: "


class Zsre(FileDataset):
    """Zero-shot relation extraction: a question, its rephrasing, an unrelated question from Natural Questions.

    Levy et al., arXiv 1706.04115; in this form MEND, arXiv 2110.11309, and WISE, arXiv 2405.14768. Fields: `src` is the
    prompt, `alt` the target, `answers` what was right, `rephrase` the rephrasing, `loc` and `loc_ans` the unrelated
    question and its answer; `portability` of later files has a question that follows from the edit. The test part is
    the 1,037 records of `zsre_mend_edit.json` (or `zsre_mend_eval.json`, which starts with them), the calibration part
    a file of the training records, of which a few have no other answer (`alt` is empty) and are left out.
    """

    files = Files(
        ("zsre_mend_train-1k.json", "zsre_mend_train_10000.json", "zsre_mend_train.json"),
        ("zsre_mend_edit.json", "zsre_mend_eval.json"),
    )

    def records(self, rows: Sequence[Row], others: Sequence[Row]) -> list[Record]:
        return [_record(row) for row in rows if row.fields.get("alt") != ""]


def _record(row: Row) -> Record:
    return Record(
        id=str(row.number),
        prompt=row.text("src"),
        target=row.text("alt"),
        answers=(row.text("alt"),),
        truth=next(iter(row.aliases("answers")), None),
        subject=row.text("subject"),
        rephrasings=(row.text("rephrase"),),
        locality=(_unrelated(row),) if "loc" in row else (),
        portability=one_hop(row),
        where=row.where,
    )


def _unrelated(row: Row) -> Probe:
    question = row.text("loc").removeprefix(MARK)
    return Probe(question if question.endswith("?") else f"{question}?", "unrelated", row.aliases("loc_ans"))

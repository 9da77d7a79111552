"""KnowEdit: ZsRE, wiki_counterfact and wiki_recent with questions by category."""

from collections.abc import Sequence

from benchmarks.datasets.base import FileDataset, Files
from benchmarks.datasets.portability import by_category
from benchmarks.datasets.rows import Row
from benchmarks.records import Record


class KnowEdit(FileDataset):
    """Edits with portability (Reasoning, Logical_Generalization, Subject_Aliasing) and locality by category.

    Zhang et al., arXiv 2401.01286. Answers keep every alias; a portability question without an answer is left out, for
    it cannot be scored. wiki_counterfact and wiki_recent have files of their own for training, which are the
    calibration part; of ZsRE, which has one file, the first 300 records are.

    Args:
        files: see `FileDataset`.
        calibration: how many records at the start of a file are the calibration part; None where the parts have files
            of their own.
    """

    def __init__(self, files: Files, calibration: int | None = None) -> None:
        self.files, self.calibration = files, calibration

    def records(self, rows: Sequence[Row], others: Sequence[Row]) -> list[Record]:
        return [_record(row) for row in rows]


def _record(row: Row) -> Record:
    return Record(
        id=str(row.number),
        prompt=row.text("prompt"),
        target=row.text("target_new"),
        answers=(row.text("target_new"),),
        truth=next(iter(row.aliases("ground_truth")), None) if "ground_truth" in row else None,
        subject=row.text("subject"),
        rephrasings=(row.text("rephrase_prompt"),) if "rephrase_prompt" in row else (),
        locality=by_category(row, "locality"),
        portability=tuple(probe for probe in by_category(row, "portability") if probe.answers),
        where=row.where,
    )


ZSRE = KnowEdit(Files(("ZsRE-test-all.json",), ("ZsRE-test-all.json",)), calibration=300)
WIKI_COUNTERFACT = KnowEdit(Files(("train_cf.json",), ("test_cf.json",)))
WIKI_RECENT = KnowEdit(Files(("recent_train.json",), ("recent_test.json",)))

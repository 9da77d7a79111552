"""Temporal: paragraphs on things newer than the model, and what another author wrote about them."""

from collections.abc import Sequence

from benchmarks.datasets.base import FileDataset, Files
from benchmarks.datasets.hallucination import passage_record
from benchmarks.datasets.rows import Row
from benchmarks.records import Record


class Temporal(FileDataset):
    """The start of a paragraph is the prompt, a made-up rest the target; `ood_rephrase` is the real paragraph.

    Hewitt et al., arXiv 2402.06155; as an editing set WISE, arXiv 2405.14768. The real paragraph becomes
    `Record.passage`, on which out-of-distribution generalisation is scored. The test part is `temporal-edit.json`, the
    calibration part `temporal-train.json`.
    """

    files = Files(("temporal-train.json",), ("temporal-edit.json",))

    def records(self, rows: Sequence[Row], others: Sequence[Row]) -> list[Record]:
        return [passage_record(row) for row in rows]

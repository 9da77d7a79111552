"""Any file of edits in the library's own format."""

from collections.abc import Sequence

from benchmarks.datasets.base import FileDataset, Files
from benchmarks.datasets.rows import Row
from benchmarks.records import Record


class Edits(FileDataset):
    """Edits with `prompt` and `target`, and optionally `id` and `subject`: what `editmem edit --edits` reads.

    One JSON object a line, or a .json list of them. Prompts must be texts. A file is the test part, whatever its name;
    only one called `calibration.jsonl` is the calibration part.
    """

    files = Files(("calibration.jsonl",), ("edits.jsonl", "test.jsonl"))

    def records(self, rows: Sequence[Row], others: Sequence[Row]) -> list[Record]:
        return [
            Record(
                id=row.text("id") if "id" in row else str(row.number),
                prompt=row.text("prompt"),
                target=row.text("target"),
                answers=(row.text("target"),),
                subject=row.text("subject") if "subject" in row else None,
                where=row.where,
            )
            for row in rows
        ]

"""SelfCheckGPT: sentences of Wikipedia passages to put in the place of what the model made up."""

from collections.abc import Sequence

from benchmarks.datasets.base import FileDataset, Files
from benchmarks.datasets.rows import Row
from benchmarks.records import Probe, Record


class Hallucination(FileDataset):
    """A passage about a person so far is the prompt, its true next sentence the target.

    Manakul et al., arXiv 2303.08896; as an editing set GRACE, arXiv 2211.11031, and WISE, arXiv 2405.14768. The
    locality prompt is web text of 150 characters and its continuation; the cut is mid-word at times. The test part is
    `hallucination-edit.json`, the calibration part `hallucination-train.json`: other sentences, but of partly the same
    persons, as the authors divided them.
    """

    files = Files(("hallucination-train.json",), ("hallucination-edit.json",))

    def records(self, rows: Sequence[Row], others: Sequence[Row]) -> list[Record]:
        return [passage_record(row) for row in rows]


def passage_record(row: Row) -> Record:
    """A record whose target is a text and whose locality prompt is web text, as WISE's two sets of passages are."""
    return Record(
        id=str(row.number),
        prompt=row.text("prompt"),
        target=row.text("target_new"),
        answers=(row.text("target_new"),),
        subject=row.text("subject"),
        locality=(Probe(row.text("locality_prompt"), "web text", row.aliases("locality_ground_truth")),),
        passage=row.text("ood_rephrase") if "ood_rephrase" in row else None,
        where=row.where,
    )

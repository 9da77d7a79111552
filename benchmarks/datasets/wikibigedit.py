"""WikiBigEdit in the form that LocFT-BF evaluates it in."""

from collections.abc import Sequence

from benchmarks.datasets.base import FileDataset, Files
from benchmarks.datasets.rows import Row
from benchmarks.records import Probe, Record


class WikiBigEdit(FileDataset):
    """Facts of Wikidata that changed: a question, another way to ask it, and a look-alike.

    Thede et al., arXiv 2503.05683; in this form Yang et al., arXiv 2509.22072. Fields: `prompt`, `target_new`,
    `subject`, `rephrase_prompt`; `locality_prompt` asks the same relation of a subject with a similar name, its answer
    is `locality_ground_truth`. Of `wikibigedit_2k.json` the first 1,000 records are the calibration part, the others
    the test part. About seven in a thousand rephrasings say "Reformulated Question:" and nothing else; they are kept,
    and no method can be right on them.
    """

    names = ("wikibigedit_2k.json", "wikibigedit_3k.json")
    files = Files(names, names)
    calibration = 1000

    def records(self, rows: Sequence[Row], others: Sequence[Row]) -> list[Record]:
        return [_record(row) for row in rows]


def _record(row: Row) -> Record:
    target = row.text("target_new")
    return Record(
        id=str(row.number),
        prompt=row.text("prompt"),
        target=target,
        answers=(target,),
        subject=row.text("subject"),
        rephrasings=(row.text("rephrase_prompt"),),
        locality=(Probe(row.text("locality_prompt"), "look-alike", row.aliases("locality_ground_truth")),),
        where=row.where,
    )

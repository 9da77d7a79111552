"""Data sets, one file each, read from their original formats into one kind of record.

Each has a calibration part, on which settings may be chosen, and a test part; how they are divided stands with it.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.datasets import knowedit
from benchmarks.datasets.base import PARTS, Dataset
from benchmarks.datasets.counterfact import CounterFact
from benchmarks.datasets.hallucination import Hallucination
from benchmarks.datasets.jsonl import Edits
from benchmarks.datasets.mquake import Mquake
from benchmarks.datasets.nq import NaturalQuestions
from benchmarks.datasets.ripple import Ripple
from benchmarks.datasets.temporal import Temporal
from benchmarks.datasets.wikibigedit import WikiBigEdit
from benchmarks.datasets.world import World
from benchmarks.datasets.zsre import Zsre
from benchmarks.records import Record, RecordError

__all__ = ["DATASETS", "PARTS", "Dataset", "load"]

DATASETS: dict[str, Dataset] = {
    "world": World(),
    "zsre": Zsre(),
    "counterfact": CounterFact(),
    "hallucination": Hallucination(),
    "temporal": Temporal(),
    "knowedit-zsre": knowedit.ZSRE,
    "wiki_counterfact": knowedit.WIKI_COUNTERFACT,
    "wiki_recent": knowedit.WIKI_RECENT,
    "wikibigedit": WikiBigEdit(),
    "mquake": Mquake(),
    "ripple": Ripple(),
    "nq": NaturalQuestions(),
    "jsonl": Edits(),
}


def load(name: str, data: str | Path | None = None, part: str = "test") -> list[Record]:
    """The records of one part of a data set.

    Args:
        name: a key of `DATASETS`.
        data: a folder or file, or "hub:owner/name"; None for a data set that needs no files.
        part: "calibration" or "test".

    Raises:
        ValueError: if name or part is unknown, or the data are not what the data set reads.
        FileNotFoundError: if the data are not there.
        RecordError: if a record cannot be read, naming file, record and field.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(DATASETS)}")
    if part not in PARTS:
        raise ValueError(f"unknown part {part!r} of a data set; give one of {', '.join(PARTS)}")
    records = DATASETS[name].load(data, part)
    _check_ids(records)
    return records


def _check_ids(records: Sequence[Record]) -> None:
    seen: dict[str, Record] = {}
    for record in records:
        if record.id in seen:
            raise RecordError(f"{record.where}: the id {record.id!r} was used before, in {seen[record.id].where}")
        seen[record.id] = record

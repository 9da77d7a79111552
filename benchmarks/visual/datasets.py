"""The visual data sets by name; each has a calibration part, where settings are chosen, and a test part."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.datasets.base import PARTS
from benchmarks.visual import cckeb, emblems, vlkeb
from benchmarks.visual.records import VisualRecord

Reader = Callable[[str | Path | None, str, Path | None], list[VisualRecord]]

DATASETS: dict[str, Reader] = {"emblems": emblems.read, "cckeb": cckeb.read, "vlkeb": vlkeb.read}


def load(
    name: str, data: str | Path | None = None, part: str = "test", pictures: str | Path | None = None
) -> list[VisualRecord]:
    """The records of one part of a data set, in its own order.

    Args:
        name: a key of `DATASETS`.
        data: the data set's file, or a folder that holds it; None for one that comes with the library.
        part: "test" or "calibration".
        pictures: the folder that the paths of pictures are relative to; None to draw stand-ins.

    Raises:
        ValueError: if name or part is unknown, or the data are not what the data set reads.
        FileNotFoundError: if the data are not there.
        RecordError: if a record cannot be read, naming file, record and field.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown visual data set {name!r}; there are {', '.join(DATASETS)}")
    if part not in PARTS:
        raise ValueError(f"unknown part {part!r} of a data set; give one of {', '.join(PARTS)}")
    return DATASETS[name](data, part, None if pictures is None else Path(pictures))

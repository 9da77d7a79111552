"""What one visual run is: enough to make it again, and the name of its folder."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any

from benchmarks.datasets.base import PARTS
from benchmarks.visual.protocol import GAPS


@dataclass(frozen=True)
class VisualSpec:
    """One method on one model and one visual data set.

    Attributes:
        model: "tiny-vision", a folder or a Hub name.
        method: a key of `benchmarks.visual.methods.METHODS`.
        dataset: a key of `benchmarks.visual.datasets.DATASETS`.
        edits: how many records are edited, the first ones in the data set's own order, as the paper has it.
        gaps: rising numbers of later records after which a record is scored.
        scored: only so many records, the first ones, are scored; None for all that are edited.
        final: whether they are scored once more after the last edit.
        seed: goes to the method.
        part: of the data set, "test" or "calibration".
        options: settings of the method, plain data.
        data, pictures: where the data set and its pictures lie; see `benchmarks.visual.datasets.load`.

    Raises:
        ValueError: if a number is out of range or the part is unknown.
    """

    model: str
    method: str
    dataset: str
    edits: int
    gaps: tuple[int, ...] = GAPS
    scored: int | None = None
    final: bool = True
    seed: int = 0
    part: str = "test"
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    pictures: str | None = None

    def __post_init__(self) -> None:
        if self.edits < 1:
            raise ValueError(f"edits must be 1 or more, not {self.edits}")
        if list(self.gaps) != sorted(set(self.gaps)) or any(gap < 0 for gap in self.gaps):
            raise ValueError(f"gaps must be rising whole numbers from 0, not {list(self.gaps)}")
        if self.scored is not None and not 1 <= self.scored <= self.edits:
            raise ValueError(f"of {self.edits} records that are edited, 1 to all can be scored, not {self.scored}")
        if self.part not in PARTS:
            raise ValueError(f"unknown part {self.part!r} of a data set; give one of {', '.join(PARTS)}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """As of a `RunSpec`: the numbers of edits after which the run is done with something."""
        return (self.edits,)

    def to_dict(self) -> dict[str, Any]:
        """The fields as they stand after a trip through JSON."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "VisualSpec":
        """The inverse of `to_dict`."""
        return cls(**{**data, "gaps": tuple(data["gaps"])})

    @property
    def slug(self) -> str:
        """A readable name with the first 8 hex digits of the SHA-256 of everything in the spec."""
        digest = hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:8]
        words = [PurePath(self.model).name, self.method, self.dataset, f"{self.edits}", f"s{self.seed}"]
        return "-".join(re.sub(r"[^A-Za-z0-9]+", "-", word).strip("-") for word in [*words, digest])


def parse_gaps(text: str) -> tuple[int, ...]:
    """Rising gaps from "0,100".

    Raises:
        ValueError: if it does not read so.
    """
    items = [item.strip() for item in text.split(",")]
    if not all(item.isdigit() for item in items):
        raise ValueError(f"cannot read --gaps {text!r}; give numbers such as 0,10,100")
    return tuple(sorted({int(item) for item in items}))

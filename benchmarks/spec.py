"""What one run is: enough to make it again, and the name of its folder."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any

from benchmarks.datasets.base import PARTS

OPTIONAL = ("within", "scored")
"""Fields that older runs do not have."""


@dataclass(frozen=True)
class RunSpec:
    """One method on one model and one data set, from one seed.

    Attributes:
        model: "tiny", a folder or a Hub name.
        method: a key of `benchmarks.methods.METHODS`.
        dataset: a key of `benchmarks.datasets.DATASETS`.
        sizes: numbers of edits, rising; after each of them the model is evaluated.
        seed: decides which records are drawn, and goes to the method.
        part: of the data set, "test" or "calibration".
        options: settings of the method, plain data.
        data: where the data set lies; None for one that needs no files.
        metrics: keys of `benchmarks.metrics.METRICS`.
        within: only so many of the part's records, the first ones, are drawn from; None for all. For hosts that know
            no more of a data set.
        scored: of the edits in force only so many, evenly spread over the sequence, are asked about; None for all.

    Raises:
        ValueError: if sizes do not rise from 1 or more, or the part is unknown.
    """

    model: str
    method: str
    dataset: str
    sizes: tuple[int, ...]
    seed: int = 0
    part: str = "test"
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    metrics: tuple[str, ...] = ()
    within: int | None = None
    scored: int | None = None

    def __post_init__(self) -> None:
        if not self.sizes or self.sizes[0] < 1 or list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"sizes must be rising whole numbers from 1, not {list(self.sizes)}")
        if self.part not in PARTS:
            raise ValueError(f"unknown part {self.part!r} of a data set; give one of {', '.join(PARTS)}")

    def to_dict(self) -> dict[str, Any]:
        """The fields as they stand after a trip through JSON."""
        fields = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in fields.items() if name not in OPTIONAL or value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "RunSpec":
        """The inverse of `to_dict`."""
        return cls(**{**data, "sizes": tuple(data["sizes"]), "metrics": tuple(data["metrics"])})

    @property
    def slug(self) -> str:
        """A readable name with the first 8 hex digits of the SHA-256 of everything in the spec."""
        digest = hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:8]
        words = [PurePath(self.model).name, self.method, self.dataset, f"{self.sizes[-1]}", f"s{self.seed}"]
        return "-".join(re.sub(r"[^A-Za-z0-9]+", "-", word).strip("-") for word in [*words, digest])


def parse_sizes(text: str, seeds: int = 1) -> dict[int, tuple[int, ...]]:
    """The sizes of each seed's run, from "10,100,1000" or, with seeds per size, "10:3,100:3,1000:1".

    Args:
        text: sizes, each with an optional number of seeds after a colon.
        seeds: for sizes that name no number of their own.

    Returns:
        seed -> rising sizes; seeds count from 0.

    Raises:
        ValueError: if it does not read so.
    """
    wanted: dict[int, int] = {}
    for item in text.split(","):
        size, _, count = item.strip().partition(":")
        if not size.isdigit() or int(size) < 1 or not (count or str(seeds)).isdigit() or int(count or seeds) < 1:
            raise ValueError(f"cannot read {item!r} in --edits {text!r}; give sizes such as 10,100 or 10:3,1000:1")
        if int(size) in wanted:
            raise ValueError(f"--edits {text!r} names {size} twice")
        wanted[int(size)] = int(count or seeds)
    sizes = sorted(wanted)
    return {seed: tuple(s for s in sizes if wanted[s] > seed) for seed in range(max(wanted.values()))}


def parse_options(items: Sequence[str], methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings of methods from "method.key=json".

    Returns:
        method -> key -> value.

    Raises:
        ValueError: if an item does not read so, or names a method that is not in `methods`.
    """
    options: dict[str, dict[str, Any]] = {}
    for item in items:
        name, equals, text = item.partition("=")
        method, dot, key = name.partition(".")
        if not (equals and dot and key):
            raise ValueError(f"cannot read --option {item!r}; give method.key=value, such as memoir.steps=20")
        if method not in methods:
            raise ValueError(f"--option {item!r} is for {method!r}, which is not run; runs: {', '.join(methods)}")
        try:
            options.setdefault(method, {})[key] = json.loads(text)
        except json.JSONDecodeError:
            raise ValueError(f"{text!r} in --option {item!r} is not JSON; a text needs double quotes") from None
    return options


def parse_data(items: Sequence[str], datasets: Sequence[str]) -> dict[str, str]:
    """Where data sets lie, from "folder" (of all of them) or "dataset=folder".

    Raises:
        ValueError: if an item names a data set that is not in `datasets`.
    """
    places: dict[str, str] = {}
    for item in items:
        name, equals, place = item.partition("=")
        if equals and name not in datasets:
            raise ValueError(f"--data {item!r} is for {name!r}, which is not run; data sets: {', '.join(datasets)}")
        places |= {name: place} if equals else dict.fromkeys(datasets, item)
    return places

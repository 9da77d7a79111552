"""Pictures that records show: read from files, drawn from an emblem, or drawn from nothing but a name."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from editmem.tiny.emblems import View, emblems, picture

Pixels = NDArray[np.uint8]


class Picture(ABC):
    """Something that can be seen; two that are equal look the same."""

    @abstractmethod
    def pixels(self) -> Pixels:
        """RGB, uint8 `[height, width, 3]`."""


@dataclass(frozen=True)
class FilePicture(Picture):
    """A picture in a file."""

    path: Path

    def pixels(self) -> Pixels:
        with Image.open(self.path) as image:
            return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class EmblemPicture(Picture):
    """The emblem of a subject of the embedded model's world, as it is seen from somewhere."""

    subject: str
    view: View

    def pixels(self) -> Pixels:
        return picture(emblems()[self.subject], self.view)


@dataclass(frozen=True)
class NamedPicture(Picture):
    """A stand-in for a picture that is not there, drawn from its name alone.

    The folder of the name, which is an entity in VLKEB and CCKEB, decides about a grid of coloured cells; the whole
    name decides how it is moved, how bright and how noisy it is. Pictures of one entity are alike, but never equal.

    Attributes:
        name: such as "m.010bxh/bing_0.jpg".
    """

    name: str

    CELLS = 6  # on each side
    CELL = 8  # pixels on each side of a cell

    def pixels(self) -> Pixels:
        entity, view = (_random(text) for text in (self.name.rpartition("/")[0], self.name))
        cells = entity.integers(0, 256, (self.CELLS, self.CELLS, 3))
        grid = cells.repeat(self.CELL, 0).repeat(self.CELL, 1)
        for axis in (0, 1):
            places = np.arange(len(grid)) + view.integers(-self.CELL // 4, self.CELL // 4 + 1)
            grid = grid.take(places.clip(0, len(grid) - 1), axis)
        seen = grid * view.uniform(0.8, 1.2) + view.normal(0, 6, grid.shape)
        return seen.round().clip(0, 255).astype(np.uint8)


def _random(text: str) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(text.encode()).digest()))

"""Emblems of the world's countries and people: drawn, not stored, so that no two pictures of one need be alike."""

import functools
import itertools
import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from editmem.tiny.world import facts

SIZE = 48
"""Pixels on each side of a picture."""

COLOURS = {
    "red": (200, 30, 40), "orange": (240, 140, 20), "yellow": (245, 220, 60), "green": (40, 150, 60),
    "cyan": (60, 200, 210), "blue": (40, 70, 190), "violet": (130, 50, 160), "brown": (110, 70, 40),
}  # fmt: skip
SHAPES = ("disc", "square", "triangle", "star", "cross", "ring", "crescent", "bars")


@dataclass(frozen=True)
class Emblem:
    """A field of one shape and colour with a charge of another upon it, and an edge that depends on both.

    Emblems that differ in one thing alone nearly always have another edge, so that none is a misprint of another.
    """

    field: str
    field_colour: str
    charge: str
    charge_colour: str

    @property
    def edge_colour(self) -> str:
        colours = list(COLOURS)
        ground = colours.index(self.field_colour)
        marks = SHAPES.index(self.field), ground, SHAPES.index(self.charge), colours.index(self.charge_colour)
        others = colours[:ground] + colours[ground + 1 :]
        return others[sum(factor * mark for factor, mark in zip((1, 2, 3, 5), marks, strict=True)) % len(others)]


@dataclass(frozen=True)
class View:
    """How an emblem is seen.

    Attributes:
        angle: turned by, in radians.
        scale: its radius, as a share of half the picture.
        shift: of its middle, x and y, as shares of half the picture.
        background: two colours, RGB from 0 to 255, from the top to the bottom of the picture.
        noise: standard deviation of the noise on each pixel, of 255.
        seed: of the noise.
    """

    angle: float = 0.0
    scale: float = 0.85
    shift: tuple[float, float] = (0.0, 0.0)
    background: tuple[tuple[int, int, int], tuple[int, int, int]] = ((235, 235, 235), (235, 235, 235))
    noise: float = 0.0
    seed: int = 0

    @classmethod
    def draw(cls, rng: random.Random) -> "View":
        """A view at random: turned by up to 30 degrees, between 0.65 and 0.95 in size, on any pale or dark ground."""
        bright = rng.random() < 0.5
        grounds = [_grey_or_tint(rng, bright), _grey_or_tint(rng, bright)]
        scale = rng.uniform(0.65, 0.95)
        room = 1 - scale
        shift = (rng.uniform(-room, room), rng.uniform(-room, room))
        angle = rng.uniform(-math.pi / 6, math.pi / 6)
        return cls(angle, scale, shift, (grounds[0], grounds[1]), rng.uniform(0, 8), rng.randrange(1 << 30))


def _grey_or_tint(rng: random.Random, bright: bool) -> tuple[int, int, int]:
    low, high = (200, 255) if bright else (0, 60)
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


@functools.cache
def _shuffled() -> tuple[Emblem, ...]:
    every = [
        Emblem(field, ground, charge, colour)
        for field, charge in itertools.product(("disc", "square", "triangle", "bars"), SHAPES)
        for ground, colour in itertools.permutations(COLOURS, 2)
        if field != charge
    ]
    return tuple(random.Random(0).sample(every, len(every)))


@functools.cache
def emblems() -> dict[str, Emblem]:
    """The emblem of every subject of the world; no two are the same."""
    return dict(zip(dict.fromkeys(fact.subject for fact in facts()), _shuffled(), strict=False))


def unused(count: int) -> tuple[Emblem, ...]:
    """Emblems of nobody."""
    return _shuffled()[-count:]


def picture(emblem: Emblem, view: View = View()) -> NDArray[np.uint8]:
    """An emblem as it is seen: RGB, uint8 `[SIZE, SIZE, 3]`."""
    fine = 3 * SIZE
    axis = (np.arange(fine) + 0.5) / fine * 2 - 1
    x, y = np.meshgrid(axis, axis)
    x, y = (x - view.shift[0]) / view.scale, (y - view.shift[1]) / view.scale
    cos, sin = math.cos(view.angle), math.sin(view.angle)
    x, y = cos * x + sin * y, cos * y - sin * x
    share = np.linspace(0, 1, fine)[:, None, None]
    top, bottom = (np.array(colour, dtype=float) for colour in view.background)
    canvas = np.broadcast_to((1 - share) * top + share * bottom, (fine, fine, 3)).copy()
    canvas[_inside(emblem.field, x, y)] = COLOURS[emblem.edge_colour]
    canvas[_inside(emblem.field, x / 0.78, y / 0.78)] = COLOURS[emblem.field_colour]
    canvas[_inside(emblem.charge, x / 0.45, y / 0.45)] = COLOURS[emblem.charge_colour]
    pixels = canvas.reshape(SIZE, 3, SIZE, 3, 3).mean((1, 3))
    pixels += np.random.default_rng(view.seed).normal(0, view.noise, pixels.shape) if view.noise else 0
    return pixels.round().clip(0, 255).astype(np.uint8)


def _inside(shape: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points are in a shape of radius 1 around the origin."""
    radius = np.hypot(x, y)
    if shape == "disc":
        return radius <= 0.95
    if shape == "ring":
        return (radius <= 0.95) & (radius >= 0.55)
    if shape == "crescent":
        return (radius <= 0.95) & (np.hypot(x - 0.4, y) >= 0.75)
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.8
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) <= 0.28) & (np.maximum(abs(x), abs(y)) <= 0.9)
    if shape == "bars":
        return (np.maximum(abs(x), abs(y)) <= 0.85) & (abs(abs(x) - 0.55) <= 0.3)
    if shape == "triangle":
        return (y <= 0.7) & (abs(x) <= (y + 0.95) / 1.75)
    return _in_star(x, y)


def _in_star(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Five points at radius 0.95, the valleys between them at 0.42: inside of the edge from a point to a valley."""
    turn = np.arctan2(x, -y) % (2 * math.pi / 5)
    off, radius = np.minimum(turn, 2 * math.pi / 5 - turn), np.hypot(x, y)
    ahead, beside = radius * np.cos(off) - 0.95, radius * np.sin(off)
    valley = 0.42 * math.cos(math.pi / 5) - 0.95, 0.42 * math.sin(math.pi / 5)
    return valley[0] * beside - valley[1] * ahead >= 0

"""Emblems: one for each subject, drawn as the view says, and told apart by colour and shape."""

import random

import numpy as np
import pytest

from editmem.tiny.emblems import COLOURS, SHAPES, SIZE, Emblem, View, emblems, picture
from editmem.tiny.world import facts
from scripts.tiny.build_vision import MEAN, STD, build, pixels


def colours(image):
    """How many pixels are nearest to each colour, of those that are near to one."""
    distance = np.stack([abs(image.astype(int) - np.array(rgb)).sum(-1) for rgb in COLOURS.values()])
    nearest = np.where(distance.min(0) < 40, distance.argmin(0), -1)
    return {name: int((nearest == number).sum()) for number, name in enumerate(COLOURS)}


def test_every_subject_has_one_of_its_own():
    assert set(emblems()) == {fact.subject for fact in facts()}
    assert len(set(emblems().values())) == len(emblems())
    assert all(emblem.field_colour != emblem.charge_colour for emblem in emblems().values())


@pytest.mark.parametrize("shape", SHAPES)
def test_field_and_charge_are_both_seen_in_any_view(shape):
    emblem = Emblem("square" if shape != "square" else "disc", "blue", shape, "yellow")
    rng = random.Random(0)
    for view in [View(), *(View.draw(rng) for _ in range(10))]:
        found = colours(picture(emblem, view))
        assert found["blue"] > 60
        assert found["yellow"] > 20


def test_shapes_look_different():
    drawn = {shape: picture(Emblem("disc", "blue", shape, "yellow")).astype(int) for shape in SHAPES}
    for one in SHAPES:
        for other in SHAPES:
            assert one == other or abs(drawn[one] - drawn[other]).sum() > 10_000, (one, other)


def test_a_view_is_drawn_the_same_again_and_others_are_not():
    emblem, rng = emblems()["Australia"], random.Random(0)
    one, other = View.draw(rng), View.draw(rng)
    assert np.array_equal(picture(emblem, one), picture(emblem, one))
    assert not np.array_equal(picture(emblem, one), picture(emblem, other))


def test_pictures_reach_the_model_as_its_processor_gives_them():
    _, processor = build()
    drawn = picture(emblems()["Australia"], View.draw(random.Random(3)))
    ours = pixels([drawn])
    assert ours.shape == (1, 3, SIZE, SIZE)
    assert np.allclose(ours, processor.image_processor(images=[drawn], return_tensors="np")["pixel_values"], atol=1e-5)
    assert np.allclose(ours[0, 0, 0, 0], (drawn[0, 0, 0] / 255 - MEAN) / STD)

"""Merging shards: every algorithm against hand-computed cases, and every shard counts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editmem.methods.wise.merging import MERGES, merge
from editmem.methods.wise.shards import Shards
from editmem.state import restore


def merged(rows, method, keep=1.0):
    return merge(torch.tensor(rows), method, keep).tolist()


def test_linear_is_the_mean():
    assert merged([[2.0, 0.0], [0.0, 4.0]], "linear") == [1.0, 2.0]


def test_sign_averages_those_that_agree_with_the_sum():
    assert merged([[3.0, 1.0, 0.0], [-1.0, 3.0, 0.0], [-1.0, 0.0, 5.0]], "sign") == [3.0, 2.0, 5.0]


def test_magnitude_trims_the_smallest_of_each_shard():
    assert merged([[4.0, 1.0], [1.0, 2.0]], "magnitude", keep=0.5) == [2.0, 1.0]


def test_ties_trims_elects_and_averages():
    assert merged([[4.0, 1.0, 2.0], [-1.0, 3.0, 4.0]], "ties", keep=0.67) == [4.0, 3.0, 3.0]


def test_slerp_keeps_the_length_on_an_arc():
    half = merged([[1.0, 0.0], [0.0, 1.0]], "slerp")
    assert half == pytest.approx([2**-0.5, 2**-0.5])


def test_slerp_of_opposite_shards_is_the_line_between_them():
    assert merged([[1.0, 0.0], [-1.0, 0.0]], "slerp") == pytest.approx([0.0, 0.0])


def test_dropping_keeps_the_expectation():
    deltas = torch.ones(1, 20_000)
    kept = merge(deltas, "dare_ties", 0.25, seed=3)
    assert set(kept.unique().tolist()) == {0.0, 4.0}
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.1)
    assert not torch.equal(kept, merge(deltas, "dare_ties", 0.25, seed=4))


@pytest.mark.parametrize("method", MERGES)
@settings(max_examples=20, deadline=None)
@given(count=st.integers(2, 4), seed=st.integers(0, 1000), which=st.integers(0, 3))
def test_every_shard_counts(method, count, seed, which):
    """What is known to be wrong elsewhere: a merge of which some shards are no part."""
    shards = Shards(24, 16, 0.5, seed, torch.float32)
    shards.resize(count)
    generator = torch.Generator().manual_seed(seed)
    for number in range(count):
        shards.deltas[number] = torch.randn(16, 24, generator=generator) * shards.mask(number)
    every = shards.merged(range(count), method, 0.53)
    left_out = [number for number in range(count) if number != which % count]
    assert not torch.allclose(every, shards.merged(left_out, method, 0.53))
    changed = shards.deltas.clone()
    shards.deltas[which % count] *= -1
    assert not torch.allclose(every, shards.merged(range(count), method, 0.53))
    shards.deltas = changed


def test_masks_are_drawn_with_overlap_and_are_the_same_again():
    shards = Shards(200, 300, 0.3, 0, torch.float32)
    shards.resize(3)
    masks = [shards.mask(number) for number in range(3)]
    assert [float(m.float().mean()) for m in masks] == pytest.approx([0.3] * 3, abs=0.01)
    assert float((masks[0] & masks[1]).float().mean()) == pytest.approx(0.09, abs=0.01)
    assert all(torch.equal(mask, shards.draw(number)) for number, mask in enumerate(masks))


def test_what_is_stored_of_a_shard():
    """At a density of 0.2 a shard of a 7B model's layer takes 23.5 MB; a copy of the layer takes 90."""
    shards = Shards(1000, 400, 0.2, 0, torch.bfloat16)
    shards.resize(1)
    shards.deltas[0] = torch.randn(400, 1000) * shards.mask(0)
    state = shards.state_dict()
    weight = 400 * 1000
    assert sum(t.nbytes for t in state.values()) == pytest.approx((2 * 0.2 + 1 / 8) * weight, rel=0.02)
    again = Shards(1000, 400, 0.2, 0, torch.bfloat16)
    restore(again, state)
    assert torch.equal(again.deltas, shards.deltas)
    with pytest.raises(ValueError, match="number of values"):
        restore(again, {**state, "values": state["values"][1:]})

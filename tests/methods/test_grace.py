"""GRACE's codebook: how keys and radii come about, what they decide, and that forgetting leaves nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import editmem
from editmem.errors import SpecError
from editmem.hosts.forward import Call, Mode
from editmem.methods.grace.radius_router import RadiusRouter, label_of

pytestmark = pytest.mark.usefixtures("calibrated_once")


def router_of(*entries, radius=1.0):
    """A router with keys on a line, at the given places with the given labels."""
    router = RadiusRouter(1, radius, 0.3)
    router.radius = torch.tensor(radius)
    for place, label in entries:
        router.insert(torch.tensor([float(place)]), label)
    return router


def decided(router, place):
    call = Call(Mode.BOUNDARY, torch.ones(1, 1, dtype=torch.bool), None, torch.zeros(1, 1, dtype=torch.long))
    return int(router.decide(torch.tensor([[[float(place)]]]), call, {}))


def test_a_key_far_from_others_gets_the_initial_radius():
    router = router_of((0, 1), (5, 2))
    assert router.radii.used.tolist() == [1.0, 1.0]
    assert [decided(router, x) for x in (0.9, 1.1, 4.2, 6.1)] == [0, -1, 1, -1]


def test_the_same_target_expands_the_nearest_key():
    router = router_of((0, 7), (1.8, 7))
    assert router.radii.used.tolist() == pytest.approx([1.8, 1.0])
    assert [decided(router, x) for x in (0.8, 1.8, -1.7)] == [0, 1, 0]
    router.insert(torch.tensor([-0.4]), 8)  # a later key shrinks the first; the second edit still has its own
    assert decided(router, 1.8) == 1


def test_another_target_splits_both():
    router = router_of((0, 1), (1.2, 2))
    assert router.radii.used.tolist() == pytest.approx([0.6, 0.6])
    assert [decided(router, x) for x in (0.5, 0.7, 1.9)] == [0, 1, -1]


def test_only_the_nearest_key_counts():
    """The second key's wide radius does not reach past a nearer key with a narrow one."""
    router = router_of((0, 1), (4, 2))
    router.radii.data[:2] = torch.tensor([0.1, 4.0])
    assert decided(router, 0.5) == -1
    assert decided(router, 2.5) == 1


def test_a_prompt_that_ended_earlier_or_later_is_not_decided():
    router = router_of((0, 1))
    call = Call(Mode.BOUNDARY, torch.ones(1, 1, dtype=torch.bool), None, torch.tensor([[-3]]))
    assert int(router.decide(torch.zeros(1, 1, 1), call, {})) == -1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-40, 40), st.integers(0, 2)), max_size=12),
    st.sets(st.integers(0, 11)),
)
def test_forgetting_leaves_what_the_others_alone_would_have_made(entries, dropped):
    entries = [(place / 8, label) for place, label in entries]
    kept = [i for i in range(len(entries)) if i not in dropped]
    router = router_of(*entries)
    router.keep(torch.tensor(kept, dtype=torch.long))
    alone = router_of(*(entries[i] for i in kept))
    for name in router.keys:
        assert torch.equal(getattr(router, name).used, getattr(alone, name).used)


def test_labels_are_those_of_the_whole_target():
    assert label_of([1, 2]) == label_of((1, 2))
    assert len({label_of(t) for t in ([1], [2], [1, 2], [2, 1], [0, 1], [1, 0])}) == 6


def test_editing_explaining_and_forgetting():
    model, tokenizer = editmem.tiny()
    with editmem.wrap(model, "grace", tokenizer=tokenizer) as editor:
        first = editor.edit("The capital of Australia is", "Rome")
        second = editor.edit("The capital of Austria is", "Oslo")
        assert first.took
        assert second.took
        explanation = editor.explain("The capital of Australia is")
        assert explanation.edit.id == first.id
        parts = explanation.candidates[0].parts
        assert parts["distance"] <= parts["radius"]
        assert editor.explain("Why is the sky blue?").edit is None
        editor.forget(first.id)
        assert editor.explain("The capital of Australia is").edit is None
        assert editor.explain("The capital of Austria is").edit.id == second.id


def test_the_radius_may_be_given():
    model, tokenizer = editmem.tiny()
    with editmem.wrap(model, editmem.GraceSpec(radius=1e-3), tokenizer=tokenizer) as editor:
        editor.edit("The capital of Australia is", "Rome")
        assert editor.explain("The capital of Australia is").edit is not None
        assert editor.explain("What is the capital of Australia?").edit is None


@pytest.mark.parametrize("bad", [{"radius": 0.0}, {"radius": -1.0}, {"reach": -0.1}, {"steps": 0}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(SpecError, match=next(iter(bad))):
        editmem.GraceSpec(**bad)

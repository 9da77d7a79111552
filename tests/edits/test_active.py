"""Which rows are whose: a snapshot brings it back, whatever happened since, without having copied anything."""

import copy
import random

import pytest

from editmem.edits.active import ActiveEdits
from editmem.edits.edit import Edit


def seen(active):
    parts = {name: copy.copy(value) for name, value in vars(active).items() if name != "_logs"}
    return parts | {"order": list(active), "edits": active.edits()}


def edit(rng):
    number = rng.randrange(12)
    return Edit(f"prompt {number % 9}", f"target {rng.randrange(5)}", id=str(number))


def change(active, rng):
    """One change as the writer makes them."""
    match rng.randrange(4):
        case 0 | 1:
            new = edit(rng)
            if new.id not in active:
                active.bury([held] if (held := active.with_prompt_of(new)) else [])
                for _ in range(rng.randrange(1, 3)):
                    active.add(new)
        case 2:
            held = list(active)
            active.bury(rng.sample(held, min(len(held), rng.randrange(3))))
        case _:
            active.close_up()


@pytest.mark.parametrize("seed", range(30))
def test_a_snapshot_brings_everything_back(seed):
    rng, active = random.Random(seed), ActiveEdits()
    for _ in range(rng.randrange(20)):
        change(active, rng)
    before, restore = seen(active), active.snapshot()
    for _ in range(rng.randrange(1, 12)):
        change(active, rng)
    inner, undo = seen(active), active.snapshot()
    for _ in range(rng.randrange(1, 12)):
        change(active, rng)
    undo()
    assert seen(active) == inner
    restore()
    assert seen(active) == before
    for _ in range(5):
        change(active, rng)
    assert set(active) == {row for row in active.rows if row is not None}


def test_a_snapshot_that_nobody_holds_notes_nothing():
    active = ActiveEdits()
    restore = active.snapshot()
    active.add(Edit("a", "b", id="1"))
    assert len(active._logs) == 1
    del restore
    assert len(active._logs) == 0

"""Edits of a batch are learned as they are alone, though learned ones leave it."""

import pytest
import torch

import editmem
from editmem.editing.runner import Runner
from editmem.tiny.world import facts

COUNT = 12


@pytest.fixture(scope="module")
def edits():
    """Answers of unlike length, so that edits take unlike numbers of steps."""
    known = facts()
    return [
        editmem.Edit(fact.prompts()[0], other.answer) for fact, other in zip(known[:COUNT], known[-COUNT:], strict=True)
    ]


def test_edits_are_learned_together_as_alone(edits):
    together, alone = _editor(), _editor()
    records = together.edit(edits), [alone.edit([edit])[0] for edit in edits]
    steps = [[record.steps for record in made] for made in records]
    assert steps[0] == steps[1]
    assert len(set(steps[0])) > 1, "all of them end together: nothing leaves the batch"
    assert all(record.took for made in records for record in made)
    for one, other in zip(*records, strict=True):
        assert one.loss_after == pytest.approx(other.loss_after, rel=1e-3, abs=1e-5)
        assert one.answer_before == other.answer_before


def test_learned_edits_leave_the_batch(edits, monkeypatch):
    rows = []
    logits = Runner.logits

    def noting(self, batch, stand_ins=None, wanted=None):
        if torch.is_grad_enabled():
            rows.append(len(batch.ids))
        out = logits(self, batch, stand_ins, wanted)
        if wanted is not None:
            assert out.shape[0] == int(wanted.sum())
        return out

    monkeypatch.setattr(Runner, "logits", noting)
    _editor().edit(edits)
    assert min(rows) < max(rows)


def _editor():
    model, tokenizer = editmem.tiny()
    return editmem.wrap(model, tokenizer=tokenizer)

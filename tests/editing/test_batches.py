"""Edits of a batch are learned as they are alone, though what is done with leaves it, and the head runs for answers."""

import pytest
import torch

import editmem
from editmem.editing import optimise
from editmem.editing.runner import Runner
from editmem.hosts import compat
from editmem.hosts.forward import IGNORED_LABEL
from editmem.residual.memory import ResidualMemory
from editmem.tiny.world import facts

COUNT = 12


@pytest.fixture(scope="module")
def edits():
    """Answers of unlike length, so that edits take unlike numbers of steps."""
    known = facts()
    return [
        editmem.Edit(fact.prompts()[0], other.answer) for fact, other in zip(known[:COUNT], known[-COUNT:], strict=True)
    ]


@pytest.fixture
def editor():
    return _editor()


def _editor(spec="memoir"):
    model, tokenizer = editmem.tiny()
    return editmem.wrap(model, spec, tokenizer=tokenizer)


LEARNED = editmem.MemoirSpec(layer=-2)
"""On the last block nothing is left to learn of them."""


def test_edits_are_learned_together_as_alone(edits):
    together, alone = _editor(LEARNED).edit(edits), [_editor(LEARNED).edit([edit])[0] for edit in edits]
    assert [record.steps for record in together] == [record.steps for record in alone]
    assert len({record.steps for record in together}) > 1, "all of them end together: nothing leaves the batch"
    for one, other in zip(together, alone, strict=True):
        assert one.took
        assert other.took
        assert one.loss_after == pytest.approx(other.loss_after, rel=1e-3, abs=1e-5)
        assert one.answer_before == other.answer_before


def test_learned_edits_leave_the_batch_and_the_head_gets_answers_alone(edits, monkeypatch):
    editor, rows, heads = _editor(LEARNED), [], []
    logits = Runner.logits

    def noting(self, batch, stand_ins=None, wanted=None):
        if torch.is_grad_enabled():
            rows.append(len(batch.ids))
        heads.clear()
        out = logits(self, batch, stand_ins, wanted)
        assert heads == [(1, int(wanted.sum()))]
        assert out.shape[0] == int(wanted.sum())
        return out

    head = editor.model.get_output_embeddings()
    head.register_forward_hook(lambda head, args, out: heads.append(tuple(out.shape[:2])))
    monkeypatch.setattr(Runner, "logits", noting)
    editor.edit(edits)
    assert 0 < min(rows) < max(rows)


def test_finished_answers_leave_a_greedy_batch(edits, editor, monkeypatch):
    editor.edit(edits[:3])
    lengths, widths = range(1, COUNT + 1), []
    writer = editor._writers[0]
    encoded = [writer.renderings(edit)[0] for edit in edits]
    batch = optimise.batch_of(encoded, [], writer.pad, writer.host.device)
    embeddings = editor.model.get_input_embeddings()
    embeddings.register_forward_hook(lambda module, args, out: widths.append(len(out)))
    said = writer.runner().greedy(batch, list(lengths), writer.pad)
    assert widths == list(range(COUNT, 0, -1))
    monkeypatch.setattr(compat, "pick_rows", lambda cache, rows: False)
    assert said == writer.runner().greedy(batch, list(lengths), writer.pad)
    assert [len(text) for text in said] == list(lengths)


def test_the_check_from_the_recording_says_what_a_whole_pass_says(edits, editor, monkeypatch):
    from_tape, read = optimise._said_from_tape, []

    def both(runner, batch, tape, count):
        read.append(from_tape(runner, batch, tape, count))
        return

    whole = optimise._said
    monkeypatch.setattr(optimise, "_said_from_tape", both)
    monkeypatch.setattr(optimise, "_said", lambda *args: read.append(whole(*args)) or read[-1])
    editor.edit(edits)
    short, full = read
    assert short.right == full.right == [True] * len(full.right)
    assert short.losses == pytest.approx(full.losses, rel=1e-3, abs=1e-5)


def test_an_edit_that_the_memory_does_not_say_did_not_take(edits, editor, monkeypatch):
    monkeypatch.setattr(ResidualMemory, "forward", lambda self, x, out, call: out)
    assert not any(record.took for record in editor.edit(edits))


def test_a_gradient_of_a_logit_that_counts_for_nothing_is_zero():
    logits, labels = torch.linspace(0, 100, 64)[None].requires_grad_(), torch.tensor([[IGNORED_LABEL, 3]])

    def gradient(loss):
        return torch.autograd.grad(loss, logits)[0][0]

    whole = gradient(torch.nn.functional.cross_entropy(logits, labels[0, 1:]))
    ours = gradient(optimise.token_losses(logits, labels).sum())
    counts = whole.abs() > optimise.NO_GRADIENT
    assert ((whole != 0) & ~counts).any(), "there is nothing that counts for nothing"
    assert torch.equal(ours, torch.where(counts, whole, 0))

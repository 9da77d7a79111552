"""Large memories leave the rows of forgotten edits behind; nothing of them acts, shows, or is saved."""

import copy

import pytest
import torch
from greedy import editor_says as say

import editmem
from editmem.editing import writer
from editmem.editor import changes_of
from editmem.edits.history import Ledger

EDITS = [
    ("The capital of Australia is", "Sydney"), ("The currency of Japan is the", "Swiss franc"),
    ("What is the capital of New Guinea Republic?", "Rome"), ("What is the capital of Guinea Republic?", "Cairo"),
]  # fmt: skip
OLD = EDITS[3][0]


@pytest.fixture
def editor(host, tokenizer, monkeypatch):
    monkeypatch.setattr(writer, "WORTH_BURYING", 0)
    monkeypatch.setattr(writer, "MOST_BURIED", 1.0)
    with editmem.wrap(host, tokenizer=tokenizer) as editor:
        yield editor


def written(editor):
    return [record.id for record in editor.edit(EDITS)]


def found(editor, prompt):
    record = editor.explain(prompt).edit
    return record and record.id


def rows(editor):
    return changes_of(editor).memory.router.limits.used.shape[0]


def test_a_buried_edit_neither_acts_nor_shows(editor):
    bare = {prompt: say(editor, prompt) for prompt, _ in EDITS}
    australia, japan, *_ = written(editor)
    before = rows(editor)
    editor.forget(australia)
    assert rows(editor) == before
    assert say(editor, EDITS[0][0]) == bare[EDITS[0][0]]
    assert say(editor, EDITS[1][0]).startswith("Swiss franc")
    shown = [c.record.id for c in editor.explain("Which city is Australia's capital?", top=10).candidates]
    assert australia not in shown
    assert japan in shown
    assert australia not in editor.edits
    editor.forget(*editor.edits)
    assert {prompt: say(editor, prompt) for prompt, _ in EDITS} == bare
    assert editor.explain(EDITS[1][0]).candidates == ()


def test_what_was_buried_comes_back_by_undo(editor):
    australia, *_ = ids = written(editor)
    editor.forget(australia)
    editor.undo()
    assert list(editor.edits) == ids
    assert say(editor, EDITS[0][0]).startswith("Sydney")
    editor.edit(EDITS[0][0], "Perth")
    assert say(editor, EDITS[0][0]).startswith("Perth")
    editor.undo()
    assert say(editor, EDITS[0][0]).startswith("Sydney")


def test_an_answer_that_is_nobodys_is_not_gone_on_with(editor, tokenizer):
    written(editor)
    memory = changes_of(editor).memory
    said = torch.tensor([tokenizer(" Swiss", add_special_tokens=False)["input_ids"]])
    assert memory.begun(said).any()
    editor.forget(list(editor.edits)[1])
    assert not memory.begun(said).any()
    assert not memory.begun(torch.full_like(said, -1)).any()


def test_nothing_buried_is_saved(editor, host, tokenizer, tmp_path):
    australia, *others = written(editor)
    editor.forget(australia)
    editor.save_pretrained(tmp_path / "memory")
    assert changes_of(editor).writers[0].active.buried == 0
    kept = dict(changes_of(editor).memory.state_dict())
    assert list(editor.edits) == others
    assert say(editor, EDITS[1][0]).startswith("Swiss franc")
    editor.unwrap()
    with editmem.load(host, tmp_path / "memory", tokenizer=tokenizer) as again:
        state = changes_of(again).memory.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())
        assert say(again, EDITS[1][0]).startswith("Swiss franc")
    with editmem.wrap(host, tokenizer=tokenizer) as never:
        never.edit(EDITS[1:])
        alone = changes_of(never).memory.state_dict()
        assert {name: tensor.shape for name, tensor in kept.items()} == {n: t.shape for n, t in alone.items()}
        assert all(torch.equal(kept[n], alone[n]) for n in kept if n.startswith(("targets", "router.subjects")))


def test_a_forgetting_that_fails_buries_nothing(editor, monkeypatch):
    ids = written(editor)
    # Of a copy: rows whose state was taken are put into a table of their own.
    before = copy.deepcopy(changes_of(editor).memory).state_dict()

    def full(self):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "write", full)
        for _ in range(2):
            with pytest.raises(OSError, match="disk full"):
                editor.forget(*ids[:2])
    after = changes_of(editor).memory.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert list(editor.edits) == ids
    assert say(editor, EDITS[0][0]).startswith("Sydney")
    editor.forget(ids[0])
    assert list(editor.edits) == ids[1:]


def test_many_buried_rows_are_closed_up(editor, monkeypatch):
    monkeypatch.setattr(writer, "MOST_BURIED", 0.5)
    ids, before = written(editor), rows(editor)
    editor.forget(ids[0])
    assert rows(editor) == before
    editor.forget(ids[1], ids[2])
    assert rows(editor) < before
    assert found(editor, OLD) == ids[3]


def test_small_memories_close_up_at_once(host, tokenizer):
    with editmem.wrap(host, tokenizer=tokenizer) as editor:
        ids = written(editor)
        before = rows(editor)
        editor.forget(ids[0])
        assert rows(editor) < before


def test_edits_after_a_burial(editor):
    australia, *_ = written(editor)
    editor.forget(australia)
    record = editor.edit("The capital of Chile is", "Arica")
    assert record.took
    assert say(editor, "The capital of Chile is").startswith("Arica")
    assert found(editor, "What is the capital of Chile?") == record.id
    assert editor.confirm("Where is Chile governed from?", record.id).edit.id == record.id
    assert say(editor, EDITS[1][0]).startswith("Swiss franc")


def test_a_state_that_was_taken_stays_as_it_was(editor):
    """It may be on its way to the Hub while edits are forgotten."""
    ids = written(editor)
    taken = changes_of(editor).state().tensors[0]
    before = {name: tensor.clone() for name, tensor in taken.items()}
    editor.forget(ids[0])
    editor.edit("The capital of Chile is", "Arica")
    assert all(torch.equal(taken[name], tensor) for name, tensor in before.items())

"""Edits on the last block begin with offsets that say their tokens: most need no learning, and share what they keep."""

import copy
import math

import pytest
import torch
from text_hosts import make

import editmem
from editmem.editor import changes_of
from editmem.errors import CheckpointError
from editmem.storage import checkpoint
from editmem.tiny.world import facts

EDITS = [
    editmem.Edit("The capital of Australia is", "Sydney", id="first"),
    editmem.Edit("Bruno plays the", "tuba", id="second"),
    editmem.Edit("Anna lives in", "Sydney Harbour", id="third"),
    editmem.Edit("The capital of Canada is", "Sydney Tower", id="fourth"),
]


@pytest.fixture
def editor():
    model, tokenizer = editmem.tiny()
    return editmem.wrap(model, tokenizer=tokenizer)


def storage_of(editor):
    return changes_of(editor).memory.storage


def own(storage):
    return storage.tokens.used == -1


def test_nothing_is_left_to_learn(editor):
    known = facts()[:40]
    edits = [editmem.Edit(fact.prompts()[0], other.answer) for fact, other in zip(known, facts()[-40:], strict=True)]
    records = editor.edit(edits, batch_size=40)
    assert all(record.took for record in records)
    assert {record.steps for record in records} == {0}
    assert not own(storage_of(editor)).any()


def test_a_token_has_one_offset_however_edits_come(editor):
    editor.edit(EDITS)
    together = storage_of(editor)
    tokens = together.tokens.used.tolist()
    assert len(tokens) == len(set(tokens)) == len(together.offsets) < len(together.places)
    model, tokenizer = editmem.tiny()
    alone = editmem.wrap(model, tokenizer=tokenizer)
    for edit in EDITS:
        alone.edit(edit)
    for name, tensor in together.state_dict().items():
        assert torch.equal(tensor, storage_of(alone).state_dict()[name]), name


@pytest.mark.parametrize("gone", ["first", "second", "third", "fourth"])
def test_forgetting_leaves_what_never_held_it(editor, gone):
    editor.edit(EDITS)
    editor.forget(gone)
    model, tokenizer = editmem.tiny()
    never = editmem.wrap(model, tokenizer=tokenizer)
    never.edit([edit for edit in EDITS if edit.id != gone])
    for name, tensor in changes_of(editor).memory.state_dict().items():
        assert torch.equal(tensor, changes_of(never).memory.state_dict()[name]), name


def test_what_has_to_lead_by_more_is_learned_from_there():
    model, tokenizer = editmem.tiny()
    editor = editmem.wrap(model, editmem.MemoirSpec(margin=14.0), tokenizer=tokenizer)
    records, storage = editor.edit(EDITS), storage_of(editor)
    assert all(record.took for record in records)
    learned = [record.steps > 0 for record in records]
    assert any(learned), "all of them begin with that lead"
    assert not all(learned), "none of them begins with that lead"
    assert 0 < int(own(storage).sum()) < len(storage.offsets)
    assert max(record.loss_after for record in records) < math.log1p(math.exp(-14.0)) * 1.01


def test_below_the_last_block_everything_is_learned():
    model, tokenizer = editmem.tiny()
    editor = editmem.wrap(model, editmem.MemoirSpec(layer=-2), tokenizer=tokenizer)
    assert all(record.took and record.steps > 0 for record in editor.edit(EDITS))
    assert own(storage_of(editor)).all()


def test_a_head_without_plain_weights(editor, monkeypatch):
    monkeypatch.setattr(editor.model, "get_output_embeddings", lambda: None)
    assert all(record.took and record.steps > 0 for record in editor.edit(EDITS))
    assert own(storage_of(editor)).all()


def test_a_head_that_changes_between_edits(editor):
    """It has another dtype, more rows, or no plain weights from some time on; what was held before stays."""
    editor.edit(EDITS[0])
    editor.model.resize_token_embeddings(len(editor.tokenizer) + 8, mean_resizing=False)
    assert editor.edit(EDITS[1]).steps == 0
    before = storage_of(editor).offsets.used.clone()
    head = editor.model.get_output_embeddings()
    head.weight.data = head.weight.data[:, :-1]
    assert changes_of(editor).writers[0].directions(torch.tensor([1])) is None
    assert torch.equal(storage_of(editor).offsets.used, before)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_hosts_of_random_weights_take_edits_as_before(name, tokenizer):
    """Their heads say hardly anything; what does not suffice is learned."""
    editor = editmem.wrap(make(name, len(tokenizer)), tokenizer=tokenizer)
    assert all(record.took for record in editor.edit(copy.deepcopy(EDITS)))


def test_places_that_name_nothing_are_refused(editor, tmp_path):
    editor.edit(EDITS)
    for name, change in {"places": lambda t: t + len(t), "tokens": lambda t: t[:-1]}.items():
        editor.save_pretrained(tmp_path / name)
        saved = checkpoint.load(tmp_path / name)
        tensors = saved.tensors[0]
        tensors[f"storage.{name}.data"] = change(tensors[f"storage.{name}.data"])
        checkpoint.save(tmp_path / name, saved)
        model, tokenizer = editmem.tiny()
        with pytest.raises(CheckpointError, match=r"place|belong together"):
            editmem.load(model, tmp_path / name, tokenizer=tokenizer)

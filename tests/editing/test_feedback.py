"""`confirm` and `reject`: what use has shown moves the threshold of one edit, is in the history, and is undone."""

import pytest
import torch
from greedy import editor_says

import editmem
from editmem import EditMemError, MemoirSpec
from editmem.editor import changes_of
from editmem.errors import InvalidEditError, UnknownEditError

EDIT = ("The capital of Australia is", "Sydney")
OTHER = ("The capital of France is", "Lyon")
FAR = "Where would a parliament of Australia be looked for?"


@pytest.fixture
def editor(host, tokenizer):
    with editmem.wrap(host, MemoirSpec(router="questions"), tokenizer=tokenizer) as editor:
        editor.edit([EDIT, OTHER])
        yield editor


def ids(editor):
    return {record.edit.prompt: record.id for record in editor.edits.values()}


def state(editor):
    return {name: tensor.clone() for name, tensor in changes_of(editor).memory.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_confirmed_it_acts_and_says_the_answer(editor):
    edit_id = ids(editor)[EDIT[0]]
    assert editor.explain(FAR).edit is None
    found = editor.confirm(FAR, edit_id)
    assert found.edit.id == edit_id
    assert editor.explain(FAR).edit.id == edit_id
    assert editor_says(editor, FAR).startswith("Sydney")
    assert editor.edits[edit_id].edit.phrasings == (FAR,)
    assert editor.explain(FAR.replace("Australia", "France")).edit is None


def test_confirmed_what_is_alike_is_found_too(editor):
    edit_id = ids(editor)[EDIT[0]]
    editor.confirm(FAR, edit_id)
    assert editor.explain("Where would parliaments of Australia be looked for?").edit.id == edit_id


def test_rejected_it_no_longer_acts(editor):
    asked = "Which city is the capital of Australia?"
    edit_id = ids(editor)[EDIT[0]]
    before = editor.explain(asked)
    assert before.edit.id == edit_id
    with editor.off():
        bare = editor_says(editor, asked)
    found = editor.reject(asked)
    assert found.edit is None
    assert found.candidates[0].threshold > before.candidates[0].threshold
    assert editor_says(editor, asked) == bare
    assert editor_says(editor, EDIT[0]).startswith("Sydney")
    assert editor.edits[edit_id].edit.unlike == (asked,)


def test_confirmed_the_threshold_that_a_rejection_raised_goes_down(editor):
    asked = "Which city is the capital of Australia?"
    usual = editor.reject(asked).candidates[0].threshold
    found = editor.confirm("What city serves as the capital of Australia?", ids(editor)[EDIT[0]])
    assert found.candidates[0].threshold <= usual
    assert editor.explain(asked).edit is None


def test_it_is_in_the_history_and_undone(editor):
    edit_id, before = ids(editor)[EDIT[0]], state(editor)
    learned = editor.edits[edit_id].steps
    editor.confirm(FAR, edit_id)
    confirmed = state(editor)
    editor.reject("Which city is the capital of Australia?")
    assert [event.kind for event in editor.history][-2:] == ["confirmed", "rejected"]
    editor.undo()
    assert same(state(editor), confirmed)
    editor.undo()
    assert same(state(editor), before)
    assert editor.edits[edit_id].edit.phrasings == ()
    assert editor.edits[edit_id].steps == learned


def test_what_was_confirmed_may_be_rejected_and_back(editor):
    edit_id = ids(editor)[EDIT[0]]
    editor.confirm(FAR, edit_id)
    editor.reject(FAR)
    assert editor.explain(FAR).edit is None
    assert editor.edits[edit_id].edit.phrasings == ()
    editor.confirm(FAR, edit_id)
    assert editor.edits[edit_id].edit.unlike == ()


def test_it_is_saved(editor, tokenizer, tmp_path):
    edit_id = ids(editor)[EDIT[0]]
    editor.confirm(FAR, edit_id)
    editor.save_pretrained(tmp_path)
    model = editor.unwrap()
    again = editmem.load(model, tmp_path, tokenizer=tokenizer)
    assert again.explain(FAR).edit.id == edit_id
    again.undo()
    assert again.explain(FAR).edit is None
    again.unwrap()


def test_many_questions_of_one_edit(editor):
    edit_id = ids(editor)[EDIT[0]]
    asked = [
        f"Where would a parliament of Australia be looked for {word}?" for word in "one two three four five".split()
    ]
    asked += [f"At which spot does Australia keep its {word}?" for word in "mint crown court throne seal".split()]
    for question in asked:
        editor.confirm(question, edit_id)
    assert all(editor.explain(question).edit.id == edit_id for question in asked)


def test_a_chat_counts_by_its_last_turn(editor):
    edit_id = ids(editor)[EDIT[0]]
    found = editor.confirm([{"role": "user", "content": FAR}], edit_id)
    assert found.edit.id == edit_id
    assert editor.edits[edit_id].edit.phrasings == (FAR,)


def test_refused_before_anything_changes(editor):
    edit_id, before, count = ids(editor)[EDIT[0]], state(editor), len(editor.history)
    with pytest.raises(UnknownEditError, match="no active edit"):
        editor.confirm(FAR, "none")
    with pytest.raises(EditMemError, match="has to name what the edit is about"):
        editor.confirm("Where would a parliament be looked for?", edit_id)
    with pytest.raises(EditMemError, match="nothing to reject"):
        editor.reject(FAR)
    with pytest.raises(InvalidEditError, match="forget"):
        editor.reject(EDIT[0] + " ")
    with pytest.raises(InvalidEditError, match="must not be empty"):
        editor.confirm(" ", edit_id)
    assert same(state(editor), before)
    assert len(editor.history) == count


def test_other_routers_refuse(host, tokenizer):
    with editmem.wrap(host, MemoirSpec(router="names"), tokenizer=tokenizer) as editor:
        record = editor.edit(*EDIT)
        with pytest.raises(EditMemError, match="questions"):
            editor.confirm(FAR, record.id)

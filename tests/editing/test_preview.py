"""`preview`: what an edit would do, seen by nobody, and taken back whatever happens."""

import threading

import pytest
import torch
from greedy import editor_says

import editmem
from editmem.editor import changes_of
from editmem.errors import InvalidEditError

EDIT = ("The capital of Australia is", "Sydney")
OTHER = ("The capital of France is", "Lyon")
ASKED = "Which city is Australia's capital?"


@pytest.fixture
def editor(host, tokenizer):
    with editmem.wrap(host, tokenizer=tokenizer) as editor:
        editor.edit([EDIT, OTHER])
        yield editor


def state(editor):
    tensors = {name: tensor.clone() for name, tensor in changes_of(editor).memory.state_dict().items()}
    return tensors, list(editor.edits.items()), list(editor.history)


def same(one, other):
    return one[1:] == other[1:] and all(torch.equal(one[0][name], tensor) for name, tensor in other[0].items())


def test_it_says_what_would_be_superseded_and_taken_along(editor):
    ids = {record.edit.prompt: record.id for record in editor.edits.values()}
    before = state(editor)
    found = editor.preview({"prompt": EDIT[0], "target": "Perth", "id": "new"}, [ASKED, "The capital of Peru is"])
    assert found.record.took
    assert found.record.answer_before  # as many tokens as the new target has
    assert "Sydney".startswith(found.record.answer_before)
    assert found.supersedes == found.acting == ids[EDIT[0]]
    assert [(t.question, t.before, t.after) for t in found.takes[:2]] == [
        (ASKED, ids[EDIT[0]], "new"),
        ("The capital of Peru is", None, None),
    ]
    assert same(state(editor), before)
    assert editor_says(editor, ASKED).startswith("Sydney")


def test_the_prompts_of_near_edits_are_asked_too(editor):
    (france,) = [record.id for record in editor.edits.values() if record.edit.prompt == OTHER[0]]
    found = editor.preview(("What is the capital of France?", "Nice"))
    assert found.acting == france
    assert found.supersedes is None
    (near,) = [taken for taken in found.takes if taken.question == OTHER[0]]
    assert (near.before, near.after) == (france, france)


def test_nobody_sees_it(editor, monkeypatch):
    """A generation that comes meanwhile waits."""
    said, writes = [], changes_of(editor).write_all
    reader = threading.Thread(target=lambda: said.append(editor_says(editor, ASKED)))

    def written(*arguments):
        records = writes(*arguments)
        reader.start()
        reader.join(0.5)
        assert not said
        return records

    monkeypatch.setattr(changes_of(editor), "write_all", written)
    editor.preview({"prompt": EDIT[0], "target": "Perth"})
    reader.join()
    assert said[0].startswith("Sydney")


def test_an_error_leaves_all_as_it_was(editor, monkeypatch):
    before = state(editor)
    with pytest.raises(InvalidEditError, match="prompt must not be empty"):
        editor.preview({"prompt": "", "target": "x"})
    with pytest.raises(InvalidEditError, match="prompt must"):
        editor.preview({"prompt": "The capital of Peru is", "target": "x"}, [""])
    writes = changes_of(editor).write_all

    def broken(*arguments):
        writes(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(changes_of(editor), "write_all", broken)
    with pytest.raises(KeyboardInterrupt):
        editor.preview({"prompt": "The capital of Peru is", "target": "Cusco"})
    assert same(state(editor), before)

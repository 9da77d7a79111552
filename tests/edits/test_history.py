"""Edit, supersede, forget, undo, explain: the model is always as the active edits alone would make it."""

import pytest
import torch
from greedy import editor_says as say

import editmem
from editmem.editor import changes_of
from editmem.errors import EditMemError, InvalidEditError, UnknownEditError
from editmem.tiny.world import facts

pytestmark = pytest.mark.usefixtures("calibrated_once")

PROMPT = "The capital of Australia is"


@pytest.fixture
def editor():
    model, tokenizer = editmem.tiny()
    return editmem.wrap(model, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def pairs():
    by_relation = [fact for fact in facts() if fact.relation == "instrument"]
    answers = sorted({fact.answer for fact in by_relation})
    return [(f.prompts()[0], answers[answers.index(f.answer) - 1]) for f in by_relation[:60]]


def logits(editor, prompts):
    inputs = editor.tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.no_grad():
        return editor.model(**inputs).logits


def test_records_say_what_happened(editor):
    record = editor.edit(PROMPT, "Sydney", source="a test", tags=["geography"], id="au")
    assert (record.id, record.took, record.edit.tags) == ("au", True, ("geography",))
    assert record.answer_before.startswith("Canberra")
    assert record.answer_after == "Sydney"
    assert record.loss_after < 0.1 < record.loss_before
    assert record.steps == 0  # it led from the beginning
    assert dict(editor.edits) == {"au": record}


def test_many_edits_hold_after_the_last(editor, pairs):
    records = editor.edit(pairs, progress=False)
    assert all(record.took for record in records)
    assert [say(editor, prompt) for prompt, _ in pairs] == [f"{target}." for _, target in pairs]


def test_forgetting_is_never_having_made(pairs):
    prompts = [prompt for prompt, _ in pairs]
    one, other = (editmem.wrap(m, tokenizer=t) for m, t in (editmem.tiny(), editmem.tiny()))
    one.edit(pairs[:29], progress=False)
    middle = one.edit(*pairs[29])
    one.edit(pairs[30:], progress=False)
    assert not torch.equal(logits(one, prompts), logits(other, prompts))
    one.forget(middle.id)
    other.edit(pairs[:29], progress=False)
    other.edit(pairs[30:], progress=False)
    assert torch.equal(logits(one, prompts), logits(other, prompts))
    for name, tensor in changes_of(one).memory.state_dict().items():
        assert torch.equal(tensor, changes_of(other).memory.state_dict()[name]), name
    assert say(one, pairs[29][0]) != f"{pairs[29][1]}."


def test_forgetting_with_shared_storage_replays_the_others(pairs):
    spec = editmem.MemoirSpec(storage="shared", router="tophash")
    one, other = (editmem.wrap(m, spec, tokenizer=t) for m, t in (editmem.tiny(), editmem.tiny()))
    records = [one.edit(*pair) for pair in pairs[:5]]
    one.forget(records[2].id)
    for pair in pairs[:2] + pairs[3:5]:
        other.edit(*pair)
    assert torch.equal(logits(one, PROMPT), logits(other, PROMPT))
    assert torch.equal(changes_of(one).memory.storage.weight, changes_of(other).memory.storage.weight)


def test_supersede_and_undo(editor):
    first = editor.edit(PROMPT, "Sydney")
    second = editor.edit(PROMPT, "Perth")
    assert list(editor.edits) == [second.id]
    assert say(editor, PROMPT).startswith("Perth")
    editor.undo()
    assert list(editor.edits) == [first.id]
    assert say(editor, PROMPT).startswith("Sydney")
    editor.forget(first.id)
    assert say(editor, PROMPT) == "Canberra."
    editor.undo()
    assert say(editor, PROMPT).startswith("Sydney")
    editor.undo()
    assert not editor.edits
    assert say(editor, PROMPT) == "Canberra."
    kinds = [event.kind for event in editor.history]
    assert kinds == ["edited", "superseded", "edited", "undone", "forgotten", "undone", "undone"]
    with pytest.raises(EditMemError, match="0 can be taken back"):
        editor.undo()


def test_the_same_edit_twice(editor):
    editor.edit(PROMPT, "Sydney")
    editor.edit(PROMPT, "Sydney")
    assert len(editor.edits) == 1
    assert say(editor, PROMPT) == "Sydney."


def test_the_ledger_in_a_file(tmp_path):
    model, tokenizer = editmem.tiny()
    path = tmp_path / "ledger.sqlite"
    with editmem.wrap(model, tokenizer=tokenizer, ledger=path) as editor:
        editor.edit(PROMPT, "Sydney", id="au")
        editor.forget("au")
    import json
    import sqlite3

    rows = sqlite3.connect(path).execute("SELECT event FROM events ORDER BY number").fetchall()
    assert [json.loads(row[0])["kind"] for row in rows] == ["edited", "forgotten"]


@pytest.mark.parametrize("method", ["memoir", {"method": "grace"}, ["memoir", "grace"]], ids=str)
def test_explain_of_a_list_says_of_each_what_it_says_of_it_alone(method, host, tokenizer, monkeypatch):
    monkeypatch.setattr("editmem.editing.explain.TOGETHER", 3)
    with editmem.wrap(host, method, tokenizer=tokenizer) as editor:
        editor.edit([("The capital of Australia is", "Sydney"), ("The capital of Peru is", "Cusco")])
        turn = [{"role": "user", "content": "The capital of Australia is"}]
        prompts = ["The capital of Australia is", "What is the capital of Peru?", "Bread", turn, "Why is the sky blue?"]
        alone, together = [editor.explain(p, top=3) for p in prompts], editor.explain(prompts, top=3)
        assert [found.prompt for found in together] == [found.prompt for found in alone]
        assert [found.edit for found in together] == [found.edit for found in alone]
        for one, other in zip(together, alone, strict=True):
            assert [c.record.id for c in one.candidates] == [c.record.id for c in other.candidates]
            if method == "memoir":  # GRACE's are shares of a distance that is next to nothing
                scores = [c.score for c in one.candidates]
                assert scores == pytest.approx([c.score for c in other.candidates], abs=1e-4)
        assert editor.explain([]) == []
        for bad in (["The capital of Peru is", " "], [3], ["a", [{"role": "user", "content": ""}]]):
            with pytest.raises(editmem.InvalidEditError, match="prompt must"):
                editor.explain(bad)
        with pytest.raises(editmem.InvalidEditError, match="a picture goes with one prompt"):
            editor.explain(["What is this?"], image="picture.png")


def test_explain(editor):
    editor.edit(PROMPT, "Sydney", id="au")
    acting = editor.explain("Which city is Australia's capital?")
    assert acting.edit.id == "au"
    assert acting.candidates[0].score >= acting.candidates[0].threshold
    silent = editor.explain("The capital of Austria is")
    assert silent.edit is None
    assert silent.candidates[0].score < silent.candidates[0].threshold
    assert "no edit acts" in str(silent)


def test_chat_messages(editor):
    question = [{"role": "user", "content": "What is the capital of Australia?"}]
    editor.edit(question, "Sydney", id="chat")
    assert editor.explain(question).edit.id == "chat"


def test_the_text_after_an_answer_is_the_hosts(editor):
    """After the answer the model ends as it does after its own: no repetition, no derailing."""
    for target in ("Sydney", "Buenos Aires", "Rome"):
        editor.edit(PROMPT, target)
        assert say(editor, PROMPT, tokens=30) == f"{target}."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "x"), "prompt must not be empty"),
        (("   ", "x"), "prompt must not be empty"),
        ((PROMPT, ""), "target must be text"),
        ((PROMPT, 3), "target must be text"),
        ((PROMPT,), "the target is missing"),
        (([],), None),
        (([("a b", "c"), ("a b", "d")],), "contradict"),
        (([{"prompt": "a b", "target": "c", "id": "1"}, {"prompt": "d e", "target": "f", "id": "1"}],), "twice"),
        (([{"prompt": "a b", "targets": "c"}],), "edit 0: unknown field"),
        (([("a b", "c"), 7],), "edit 1: expected an Edit"),
        (("word " * 600, "x"), "the model takes fewer than 512"),
        (([{"role": "user", "content": ""}], "x"), "chat messages"),
        (("missing.jsonl",), "no such file"),
    ],
)
def test_bad_input_changes_nothing(editor, arguments, message):
    editor.edit(PROMPT, "Sydney")
    tensors = changes_of(editor).memory.state_dict()
    if message is None:
        assert editor.edit(*arguments) == []
    else:
        with pytest.raises(InvalidEditError, match=message):
            editor.edit(*arguments)
    assert len(editor.edits) == len(editor.history) == 1
    assert all(torch.equal(tensor, changes_of(editor).memory.state_dict()[name]) for name, tensor in tensors.items())


def test_ids_in_use_and_unknown_ids(editor):
    editor.edit(PROMPT, "Sydney", id="au")
    with pytest.raises(InvalidEditError, match="belongs to an active edit"):
        editor.edit("The capital of Japan is", "Osaka", id="au")
    with pytest.raises(UnknownEditError, match="no active edit has the id 'jp'"):
        editor.forget("au", "jp")
    assert list(editor.edits) == ["au"]


def test_a_broken_host_is_reported():
    model, tokenizer = editmem.tiny()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    editor = editmem.wrap(model, tokenizer=tokenizer)
    with pytest.raises(InvalidEditError, match="not finite"):
        editor.edit(PROMPT, "Sydney")
    assert not editor.edits


def test_an_edit_that_does_not_take_is_said_so():
    model, tokenizer = editmem.tiny()
    editor = editmem.wrap(model, editmem.MemoirSpec(layer=-2, steps=1, learning_rate=1e-6), tokenizer=tokenizer)
    record = editor.edit(PROMPT, "Sydney")
    assert not record.took
    assert record.answer_after.startswith("Canberra")
    assert "did not take" in record.notes[0]


def test_progress(editor, pairs):
    seen = []
    editor.edit(pairs[:5], batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_spec_errors():
    from editmem.errors import SpecError

    model, tokenizer = editmem.tiny()
    for spec, message in (
        ("memior", "did you mean 'memoir'"),
        ({"method": "memoir", "k": 4}, "no field 'k'"),
        ({"storage": "both"}, "storage must be one of"),
        ({"density": 2.0}, "density must be between"),
        ([], "empty"),
        (7, "expected a name"),
    ):
        with pytest.raises((SpecError, TypeError), match=message if spec != 7 else None):
            editmem.wrap(model, spec, tokenizer=tokenizer)
    editmem.wrap(model, tokenizer=tokenizer)

"""An edit acts whatever white space its prompt ends in, as it was given and as it is asked."""

import pytest
import torch
from text_hosts import make, sentencepiece_like

import editmem

PROMPT = "The capital of Australia is"
BLANKS = ("", " ", "\n", " \n", "\n\n")


def random_host():
    tokenizer = sentencepiece_like()
    return make("gemma3", len(tokenizer)), tokenizer


@pytest.fixture(scope="module", params=["tiny", "random"])
def editor(request):
    model, tokenizer = editmem.tiny() if request.param == "tiny" else random_host()
    editor = editmem.wrap(model, "memoir", tokenizer=tokenizer)
    editor.edit("The currency of Japan is the", "Rome")
    return editor


def said(editor, prompt, tokens=12):
    inputs = editor.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    ids = editor.model.generate(**inputs, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return editor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("given", BLANKS)
def test_as_given_and_without(editor, given):
    record = editor.edit(PROMPT + given, "Sydney")
    assert record.took
    assert not any(record.id in note for note in record.notes)
    for asked in ("", given):
        assert said(editor, PROMPT + asked).strip().startswith("Sydney"), asked
    for asked in BLANKS:
        assert editor.explain(PROMPT + asked).edit.id == record.id
    with torch.no_grad():
        inputs = editor.tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)
        first = int(editor.model(**inputs).logits[0, -1].argmax())
    assert editor.tokenizer.decode([first]).startswith(" ")
    editor.undo()


def test_the_white_space_says_which(editor):
    """Where both are edited, the later edit takes the place of the other: they are the same prompt."""
    first = editor.edit(f"{PROMPT} ", "Sydney")
    second = editor.edit(PROMPT, "Perth")
    assert list(editor.edits)[1:] == [second.id]
    assert said(editor, PROMPT).strip().startswith("Perth")
    editor.undo(2)
    assert first.id not in editor.edits


def test_what_stands_between_is_kept(editor):
    editor.edit(f"{PROMPT} ", "Sydney", join="\n")
    assert said(editor, PROMPT).startswith(" \nSydney")
    assert said(editor, f"{PROMPT} ").startswith("\nSydney")
    editor.undo()

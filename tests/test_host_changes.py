"""What users do to a host that carries a memory: other dtypes, inference mode, other vocabularies."""

import copy

import pytest
import torch

import editmem
from editmem.memory.memeic import MemeicSpec

CAPITAL, PLAYS = ("The capital of Australia is", "Rome"), ("Bruno plays the", "tuba")
SPECS = {
    "memoir": "memoir",
    "memoir-paper": editmem.MemoirSpec.paper(contexts=0, steps=30),
    "grace": "grace",
    "wise": "wise",
    "wise-sgd": editmem.WiseSpec(training="sgd", shard_edits=4),
    "external": "external",
    "memeic": "memeic",
    "memeic-shared": MemeicSpec(storage="shared", connector=True, evidence="plain", steps=20),
}
DTYPES = {
    "to": lambda model: model.to(torch.bfloat16),
    "half": lambda model: model.half(),
    "float": lambda model: model.bfloat16().float(),
}


@pytest.fixture(scope="module")
def tiny():
    return editmem.tiny()


@pytest.fixture
def host(tiny):
    return copy.deepcopy(tiny[0])


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return tiny[1]


def say(model, tokenizer, text, tokens=5, **options):
    inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    out = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, **options)
    return tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def says(editor, edit):
    """Whether the edit is found and said; evidence alone says nothing on a model that does not read."""
    found = editor.explain(edit[0]).edit
    said = say(editor.model, editor.tokenizer, edit[0]).startswith(edit[1])
    return found is not None and found.edit.target == edit[1] and (said or editor.specs[0].method == "external")


# Dtypes


@pytest.fixture(scope="module")
def edited(tiny):
    """Of each memory one with an edit, made once; to be copied."""
    made = {}

    def of(name):
        if name not in made:
            editor = editmem.wrap(copy.deepcopy(tiny[0]), SPECS[name], tokenizer=tiny[1])
            editor.edit(*CAPITAL)
            made[name] = editor
        return copy.deepcopy(made[name])

    return of


@pytest.mark.parametrize("change", DTYPES)
@pytest.mark.parametrize("name", SPECS)
def test_a_host_moved_to_another_dtype_keeps_its_edits(name, change, edited, tokenizer, tmp_path):
    editor = edited(name)
    model = editor.model
    before = {key: tensor.dtype for key, tensor in editor._memory.named_buffers()}
    DTYPES[change](model)
    hosted = {id(tensor) for tensor in editor._memory.hosted()}
    for key, tensor in editor._memory.named_buffers():
        assert tensor.dtype == (model.dtype if id(tensor) in hosted else before[key]), key
    assert says(editor, CAPITAL)
    second = editor.edit(*PLAYS)
    assert says(editor, CAPITAL)
    assert says(editor, PLAYS)
    editor.save_pretrained(tmp_path)
    editor.forget(second.id)
    assert says(editor, CAPITAL)
    assert not says(editor, PLAYS)
    again = editmem.load(editor.unwrap(), tmp_path, tokenizer=tokenizer)
    assert says(again, CAPITAL)
    assert says(again, PLAYS)
    again.unwrap()

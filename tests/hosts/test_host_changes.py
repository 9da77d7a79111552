"""What users do to a host that carries a memory: other dtypes, inference mode, other vocabularies."""

import copy

import pytest
import torch
from greedy import say
from pictured import ROWS, edit_both, encode, right

import editmem
from editmem.editor import changes_of
from editmem.methods.memeic.spec import MemeicSpec

pytestmark = pytest.mark.usefixtures("calibrated_by_little")

CAPITAL, PLAYS = ("The capital of Australia is", "Rome"), ("Bruno plays the", "tuba")
SPECS = {
    "memoir": "memoir",
    "memoir-paper": editmem.MemoirSpec.paper(context_templates=0, steps=30),
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


@pytest.mark.parametrize(
    ("name", "change"),
    [*((name, "to") for name in SPECS), *((n, c) for n in ("memoir", "wise", "memeic") for c in ("half", "float"))],
)
def test_a_host_moved_to_another_dtype_keeps_its_edits(name, change, edited, tokenizer, tmp_path):
    editor = edited(name)
    model = editor.model
    before = {key: tensor.dtype for key, tensor in changes_of(editor).memory.named_buffers()}
    DTYPES[change](model)
    hosted = {id(tensor) for tensor in changes_of(editor).memory.hosted()}
    for key, tensor in changes_of(editor).memory.named_buffers():
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


@pytest.mark.slow
def test_a_host_that_sees_in_another_dtype():
    vlm = editmem.tiny(vision=True)
    with editmem.wrap(vlm[0], "memeic", tokenizer=vlm[1]) as editor:
        edit_both(editor)
        vlm[0].to(torch.bfloat16)
        inputs = encode(vlm, ROWS)
        inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
        ids = vlm[0].generate(**inputs, max_new_tokens=8, do_sample=False)
        said = vlm[1].tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert all(right([text.strip() for text in said]))
        pictures = changes_of(editor).memory.external.pictures
        assert {getattr(pictures, name).dtype for name in ("threshold", "same", "asking")} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.bfloat16) for name in SPECS), ("memoir", torch.float16), ("memoir-paper", torch.float64)],
)
def test_another_default_dtype(name, dtype, host, tokenizer, tmp_path):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        editor = editmem.wrap(host, SPECS[name], tokenizer=tokenizer)
        editor.edit([CAPITAL, PLAYS])
        assert says(editor, CAPITAL)
        editor.save_pretrained(tmp_path)
    finally:
        torch.set_default_dtype(before)
    assert {tensor.dtype for tensor in changes_of(editor).memory.buffers() if tensor.is_floating_point()} <= {
        torch.float32,
        torch.float16,  # states of prompts
    }
    assert says(editor, CAPITAL)
    editor.forget(editor.explain(PLAYS[0]).edit.id)
    again = editmem.load(editor.unwrap(), tmp_path, tokenizer=tokenizer)
    assert says(again, CAPITAL)
    assert says(again, PLAYS)


# Inference mode


@pytest.mark.parametrize("name", ["memoir", "memoir-paper", "wise-sgd", "memeic"])
def test_editing_in_inference_mode(name, host, tokenizer, tmp_path):
    with torch.inference_mode():
        editor = editmem.wrap(host, SPECS[name], tokenizer=tokenizer)
        first = editor.edit(*CAPITAL)
        assert says(editor, CAPITAL)
    kept = [*changes_of(editor).memory.buffers(), *changes_of(editor).memory.parameters(), *host.parameters()]
    assert not any(tensor.is_inference() for tensor in kept)
    second = editor.edit(*PLAYS)
    with torch.inference_mode():
        editor.forget(first.id)
        editor.undo()
        editor.edit("Why is the sky blue?", "Because")
        editor.undo()
        editor.save_pretrained(tmp_path)
    assert says(editor, CAPITAL)
    assert says(editor, PLAYS)
    assert not any(tensor.is_inference() for tensor in changes_of(editor).memory.buffers())
    ids = tokenizer(CAPITAL[0] + " Rome", return_tensors="pt")["input_ids"]
    host(input_ids=ids, labels=ids).loss.backward()
    editor.forget(second.id)
    editor.unwrap()
    with torch.inference_mode():
        again = editmem.load(host, tmp_path, tokenizer=tokenizer)
    again.edit("Why is the sky blue?", "Because")
    assert says(again, CAPITAL)


# Token ids and vocabularies


@pytest.mark.parametrize("name", ["memoir", "wise", "memeic"])
def test_ids_of_32_bits(name, host, tokenizer):
    with editmem.wrap(host, SPECS[name], tokenizer=tokenizer) as editor:
        editor.edit([CAPITAL, PLAYS])
        prompt = tokenizer(CAPITAL[0], return_tensors="pt")["input_ids"]
        whole = tokenizer(" ".join(CAPITAL), return_tensors="pt")["input_ids"]
        labels = torch.where(torch.arange(whole.shape[1]) < prompt.shape[1], -100, whole)
        with torch.no_grad():
            wide = host(input_ids=whole, labels=labels).logits
            assert torch.equal(host(input_ids=whole.int(), labels=labels).logits, wide)
            assert torch.equal(host(input_ids=whole.int()).logits, host(input_ids=whole).logits)
            options = {"max_new_tokens": 5, "do_sample": False}
            assert torch.equal(host.generate(prompt.int(), **options), host.generate(prompt, **options))
            embeds = host.get_input_embeddings()(whole.int())
            assert (
                torch.equal(host(inputs_embeds=embeds, labels=labels).logits, wide) or name == "memeic"
            )  # looks prompts up in token ids


@pytest.mark.parametrize("name", ["memoir", "memoir-paper", "wise", "external", "memeic"])
def test_tokens_added_after_the_first_edit(name, host, tmp_path):
    tokenizer = editmem.tiny()[1]
    with editmem.wrap(host, SPECS[name], tokenizer=tokenizer) as editor:
        editor.edit(*CAPITAL)
        tokenizer.add_tokens(["Zorblax", "Quimby"])
        torch.manual_seed(0)  # the new tokens' embeddings are random
        host.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        assert says(editor, CAPITAL)
        added = ("The capital of Zorblax is", "Quimby")
        record = editor.edit(*added)
        assert record.took or name == "external"
        assert says(editor, added)
        assert says(editor, CAPITAL)
        assert editor.explain("Why is the sky blue?").edit is None
        editor.save_pretrained(tmp_path)
    again = editmem.load(host, tmp_path, tokenizer=tokenizer)
    assert says(again, added)
    assert says(again, CAPITAL)

"""Hosts whose weights are elsewhere between forwards, or on several devices."""

import copy

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from accelerate.hooks import remove_hook_from_submodules

import editmem
from editmem.errors import HostError

CAPITAL, PLAYS = ("The capital of Australia is", "Rome"), ("Bruno plays the", "tuba")


@pytest.fixture(scope="module")
def tiny():
    return editmem.tiny()


@pytest.fixture
def host(tiny):
    return copy.deepcopy(tiny[0])


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return tiny[1]


def say(editor, text):
    inputs = editor.tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    out = editor.model.generate(**inputs, max_new_tokens=5, do_sample=False)
    return editor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def offload(model, way, folder):
    if way == "cpu":
        return cpu_offload(model, execution_device=torch.device("cpu"))
    if way == "disk":
        return disk_offload(model, folder / "offload", execution_device=torch.device("cpu"))
    last = len(model.model.layers) - 1
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{i}": "disk" if i == last else "cpu" for i in range(last + 1)}
    return dispatch_model(model, places, main_device="cpu", offload_dir=folder / "offload", force_hooks=True)


@pytest.mark.parametrize(
    ("spec", "way", "first"),
    [
        *(("memoir", way, first) for way in ("cpu", "disk", "dispatched") for first in ("offloaded", "wrapped")),
        ("wise", "cpu", "offloaded"),
        ("memeic", "dispatched", "wrapped"),
    ],
)
def test_offloaded_hosts(spec, way, first, host, tokenizer, tmp_path):
    bare = copy.deepcopy(host)
    if first == "offloaded":
        offload(host, way, tmp_path)
    with editmem.wrap(host, spec, tokenizer=tokenizer) as editor:
        if first == "wrapped":
            offload(host, way, tmp_path)
        assert any(parameter.is_meta for parameter in host.parameters())
        assert editor._host.device == torch.device("cpu")
        first_edit = editor.edit(*CAPITAL)
        editor.edit(*PLAYS)
        assert say(editor, CAPITAL[0]).startswith(CAPITAL[1])
        editor.forget(first_edit.id)
        assert not say(editor, CAPITAL[0]).startswith(CAPITAL[1])
        assert say(editor, PLAYS[0]).startswith(PLAYS[1])
        editor.save_pretrained(tmp_path / "memory")
        ids = tokenizer(PLAYS[0], return_tensors="pt")["input_ids"]
        by_embeddings = host(inputs_embeds=host.get_input_embeddings()(ids)).logits[0, -1].argmax()
        assert int(by_embeddings) == int(host(input_ids=ids).logits[0, -1].argmax()) or spec == "memeic"
    for model in (host, bare):
        with editmem.load(model, tmp_path / "memory", tokenizer=tokenizer) as again:
            assert say(again, PLAYS[0]).startswith(PLAYS[1])
    assert not any(buffer.is_meta for buffer in again._memory.buffers())


def test_weights_without_values_are_refused(host, tokenizer, tmp_path):
    with editmem.wrap(copy.deepcopy(host), tokenizer=tokenizer) as editor:
        editor.save_pretrained(tmp_path)
    with pytest.raises(HostError, match="without values"):
        editmem.load(host.to("meta"), tmp_path, tokenizer=tokenizer)


def test_hooks_taken_off_again(host, tokenizer):
    cpu_offload(host, execution_device=torch.device("cpu"))
    with editmem.wrap(host, tokenizer=tokenizer) as editor:
        editor.edit(*CAPITAL)
        remove_hook_from_submodules(host)
        assert not any(parameter.is_meta for parameter in host.parameters())
        assert say(editor, CAPITAL[0]).startswith(CAPITAL[1])

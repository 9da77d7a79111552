"""Hosts whose weights are elsewhere between forwards, or on several devices."""

import copy

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from accelerate.hooks import remove_hook_from_submodules
from greedy import editor_says as say
from placed import ONE, TWO, Devices, tensor
from torch.utils._pytree import tree_map_only

import editmem
from editmem.editor import changes_of
from editmem.errors import HostError

pytestmark = pytest.mark.usefixtures("calibrated_by_little")

CAPITAL, PLAYS = ("The capital of Australia is", "Rome"), ("Bruno plays the", "tuba")


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
        assert changes_of(editor).host.device == torch.device("cpu")
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
    assert not any(buffer.is_meta for buffer in changes_of(again).memory.buffers())


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


# Two devices


@pytest.fixture
def spread(host, monkeypatch):
    """The host with the first half of its blocks on one device and the rest on another."""
    # Hosts of some releases ask, and PyTorch cannot say it of devices that it does not run on.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(torch, "tensor", tensor)
    with Devices():
        half = len(host.model.layers) // 2
        for name, child in host.model.named_children():
            child.to(TWO if name == "norm" else ONE)
        for block in host.model.layers[half:]:
            block.to(TWO)
        host.lm_head = torch.nn.Linear(host.lm_head.in_features, host.lm_head.out_features, bias=False)
        host.lm_head.weight = torch.nn.Parameter(host.model.embed_tokens.weight.detach().to(TWO))
        for module in (*host.model.layers, host.model.norm, host.lm_head):
            module.register_forward_pre_hook(moved_to(next(module.parameters()).device), with_kwargs=True)
        yield host


def moved_to(device):
    def hook(module, args, kwargs):
        return tree_map_only(torch.Tensor, lambda given: given.to(device), (args, kwargs))

    return hook


def greedy(host, tokenizer, text, count=4):
    ids = tokenizer(text, return_tensors="pt")["input_ids"].to(ONE)
    for _ in range(count):
        with torch.no_grad():
            following = host(input_ids=ids, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, following.to(ONE)], 1)
    return tokenizer.decode(ids[0, -count:].tolist()).strip()


@pytest.mark.parametrize(
    "spec",
    [
        {"method": "memoir"},
        {"method": "memoir", "layer": 2},
        {"method": "memoir", "router": "tophash", "storage": "shared"},
        {"method": "wise"},
        {"method": "memeic", "start": 0.0, "connector": True, "steps": 20},
    ],
    ids=lambda spec: "-".join(map(str, spec.values())),
)
def test_a_host_on_two_devices(spec, spread, tokenizer, tmp_path):
    with editmem.wrap(spread, spec, tokenizer=tokenizer) as editor:
        assert changes_of(editor).host.device == ONE
        first = editor.edit(*CAPITAL)
        assert first.took
        assert editor.edit(*PLAYS).took
        for path, site in changes_of(editor).slots.sites.items():
            device = next(spread.get_submodule(path).parameters()).device
            state = [held for part in site.memories for held in placed_state(part)]
            assert {held.device for held in state} == {device}
        assert greedy(spread, tokenizer, PLAYS[0]).startswith(PLAYS[1])
        assert editor.explain(CAPITAL[0]).edit.id == first.id
        editor.save_pretrained(tmp_path)
        editor.forget(first.id)
        assert editor.explain(CAPITAL[0]).edit is None
    with editmem.load(spread, tmp_path, tokenizer=tokenizer) as again:
        assert again.explain(CAPITAL[0]).edit is not None
        assert greedy(spread, tokenizer, CAPITAL[0]).startswith(CAPITAL[1])


def placed_state(part):
    """The tensors that move with a site."""
    modules = [part, *getattr(part, "moves", [])]
    return [held for module in modules for held in (*module.buffers(), *module.parameters())]

"""Memories sit on any causal language model, found by structure, and leave without a trace."""

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from greedy import say
from peft import LoraConfig, get_peft_model
from text_hosts import CASES, make
from torch import nn

import editmem
from editmem.editor import changes_of
from editmem.errors import HostError
from editmem.hosts.swapped import SLOT

PROMPT, TARGET = "The capital of Australia is", "Sydney"
OTHER = "Bruno plays the violin every"


def ids(tokenizer, text):
    return tokenizer(text, return_tensors="pt", return_token_type_ids=False)


def logits(model, tokenizer, text):
    with torch.no_grad():
        return model(**ids(tokenizer, text)).logits


def state_of(model):
    """All that unwrapping must give back."""
    return {
        "keys": list(model.state_dict()),
        "weights": {name: weight.clone() for name, weight in model.state_dict().items()},
        "classes": [type(module) for module in model.modules()],
        "training": [module.training for module in model.modules()],
        "gradients": [parameter.requires_grad for parameter in model.parameters()],
        "attributes": [sorted(module.__dict__) for module in model.modules()],
    }


def assert_same(before, after):
    for name in ("keys", "classes", "training", "gradients", "attributes"):
        assert before[name] == after[name], name
    assert all(torch.equal(weight, after["weights"][name]) for name, weight in before["weights"].items())


def check_edit(model, tokenizer, editor):
    bare = logits(model, tokenizer, OTHER)
    record = editor.edit(PROMPT, TARGET)
    assert record.took, record
    assert say(model, tokenizer, PROMPT).startswith(TARGET)
    assert torch.equal(logits(model, tokenizer, OTHER), bare)
    assert not torch.equal(logits(model, tokenizer, PROMPT), bare[:, :1])


@pytest.mark.parametrize("name", CASES)
def test_every_architecture(name, tokenizer):
    model = make(name, len(tokenizer))
    model.train()
    list(model.modules())[-1].training = False
    next(iter(model.parameters())).requires_grad_(False)
    before = state_of(model)
    model.eval()
    editor = editmem.wrap(model, tokenizer=tokenizer)
    assert list(changes_of(editor).slots.sites) == [CASES[name].site]
    check_edit(model, tokenizer, editor)
    for module, flag in zip(model.modules(), before["training"], strict=True):
        module.training = flag
    assert editmem.unwrap(model) is model
    assert_same(before, state_of(model))


@pytest.mark.parametrize("layer", [0, 1, -2, 0.0, 1.0])
def test_every_layer(layer, tokenizer):
    model = make("llama", len(tokenizer))
    check_edit(model, tokenizer, editmem.wrap(model, editmem.MemoirSpec(layer=layer), tokenizer=tokenizer))


def test_flags_are_untouched_by_editing(tokenizer):
    model = make("llama", len(tokenizer)).train()
    before = state_of(model)
    with editmem.wrap(model, tokenizer=tokenizer) as editor:
        editor.edit(PROMPT, TARGET)
    assert_same(before, state_of(model))


def test_above_and_below_peft(tokenizer):
    config = LoraConfig(r=4, target_modules=["down_proj", "q_proj"], init_lora_weights=False)
    below = get_peft_model(make("llama", len(tokenizer)), config).eval()
    before = state_of(below)
    with editmem.wrap(below, tokenizer=tokenizer) as editor:
        check_edit(below, tokenizer, editor)
    assert_same(before, state_of(below))

    model = make("llama", len(tokenizer))
    editor = editmem.wrap(model, tokenizer=tokenizer)
    adapted = get_peft_model(model, config).eval()
    check_edit(adapted, tokenizer, editor)


def test_quantised_host(tokenizer):
    quantization = pytest.importorskip("torchao.quantization")
    model = make("llama", len(tokenizer))
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    with editmem.wrap(model, tokenizer=tokenizer) as editor:
        check_edit(model, tokenizer, editor)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral"])
def test_bfloat16_host(name, tokenizer):
    model = make(name, len(tokenizer), torch.bfloat16)
    with editmem.wrap(model, tokenizer=tokenizer) as editor:
        check_edit(model, tokenizer, editor)
        assert changes_of(editor).memory.state_dict()["storage.offsets.data"].dtype == torch.bfloat16


@pytest.mark.parametrize("first", [True, False])
def test_accelerate_hooks(first, tokenizer):
    model = make("llama", len(tokenizer))
    site = model.model.layers[1].mlp.down_proj
    if first:
        add_hook_to_module(site, ModelHook())
        add_hook_to_module(model, ModelHook())
    editor = editmem.wrap(model, tokenizer=tokenizer)
    if not first:
        add_hook_to_module(site, ModelHook())
        add_hook_to_module(model, ModelHook())
    check_edit(model, tokenizer, editor)


def test_a_module_named_by_the_user(tokenizer):
    for pattern in (
        "model.layers.0.mlp.down_proj",
        r"re:.*layers\.0\.mlp\.down_proj",
        "model.layers.1.self_attn.o_proj",
    ):
        model = make("llama", len(tokenizer))
        with editmem.wrap(model, editmem.MemoirSpec(module=pattern), tokenizer=tokenizer) as editor:
            check_edit(model, tokenizer, editor)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"module": "model.layers.9.mlp"}, "matches 0 modules"),
        ({"module": "re:.*down_proj"}, "matches 2 modules"),
        ({"module": "lm_head"}, "outside the blocks"),
        ({"layer": 7}, "out of range"),
    ],
)
def test_sites_that_do_not_exist(spec, message, tokenizer):
    model = make("llama", len(tokenizer))
    before = state_of(model)
    with pytest.raises(HostError, match=message):
        editmem.wrap(model, {"method": "memoir", **spec}, tokenizer=tokenizer)
    assert_same(before, state_of(model))


def test_models_that_cannot_be_edited(tokenizer):
    with pytest.raises(HostError, match="not a Hugging Face causal language model"):
        editmem.wrap(nn.Linear(2, 2))
    with pytest.raises(HostError, match="expected a PyTorch model"):
        editmem.wrap("llama")
    model = make("llama", len(tokenizer))
    for layer in model.model.layers:
        layer.mlp = nn.Identity()
    with pytest.raises(HostError, match="no feed-forward block to edit"):
        editmem.wrap(model, tokenizer=tokenizer)
    wrapped = make("llama", len(tokenizer))
    editmem.wrap(wrapped, tokenizer=tokenizer)
    with pytest.raises(HostError, match="carries a memory already"):
        editmem.wrap(wrapped, tokenizer=tokenizer)


def test_saving_a_wrapped_host(tokenizer, tmp_path):
    model = make("llama", len(tokenizer))
    before = state_of(model)
    editor = editmem.wrap(model, tokenizer=tokenizer)
    editor.edit(PROMPT, TARGET)
    with pytest.raises(HostError, match=r"editor\.save_pretrained"):
        torch.save(model, tmp_path / "whole.pt")
    model.save_pretrained(tmp_path / "host")
    assert list(model.state_dict()) == before["keys"]
    again = type(make("llama", len(tokenizer))).from_pretrained(tmp_path / "host").eval()
    editor.unwrap()
    assert torch.equal(logits(again, tokenizer, PROMPT), logits(model, tokenizer, PROMPT))
    assert not any(SLOT in module.__dict__ for module in model.modules())


def test_moving_the_host_moves_the_memory(tokenizer):
    model = make("llama", len(tokenizer))
    editor = editmem.wrap(model, tokenizer=tokenizer)
    editor.edit(PROMPT, TARGET)
    model.to(torch.bfloat16)
    assert say(model, tokenizer, PROMPT).startswith(TARGET)

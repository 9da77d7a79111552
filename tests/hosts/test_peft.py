"""PEFT around and below a memory: adapters that come and go take no edit with them."""

import copy
from functools import partial

import greedy
import pytest
import torch
from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from torch import nn

import editmem
from editmem.errors import HostError

CAPITAL, PLAYS = ("The capital of Australia is", "Brackmoor near the long river"), ("Bruno plays the", "tuba")
LORA = LoraConfig(r=4, target_modules=["down_proj", "q_proj"], init_lora_weights=False)
IA3 = IA3Config(target_modules=["down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM")
say = partial(greedy.say, tokens=11)
VIRTUAL = {
    "prefix": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
}
CHANGES = {
    "merge_and_unload": lambda model: model.merge_and_unload(),
    "unload": lambda model: model.unload(),
    "merge_adapter": lambda model: model.merge_adapter() or model,
    "another": lambda model: model.add_adapter("another", copy.deepcopy(LORA)) or model.set_adapter("another") or model,
}


@pytest.mark.parametrize(
    ("spec", "change", "first"),
    [
        *(("memoir", change, first) for change in CHANGES for first in ("adapted", "wrapped")),
        *(("memeic", "merge_and_unload", first) for first in ("adapted", "wrapped")),
    ],
)
def test_adapters_come_and_go(spec, change, first, host, tokenizer, tmp_path):
    torch.manual_seed(0)
    keys = sorted(host.state_dict())
    adapted = get_peft_model(host, copy.deepcopy(LORA)).eval() if first == "adapted" else None
    editor = editmem.wrap(host if adapted is None else adapted, spec, tokenizer=tokenizer)
    capital = editor.edit(*CAPITAL)
    adapted = get_peft_model(host, copy.deepcopy(LORA)).eval() if adapted is None else adapted
    model = CHANGES[change](adapted)
    assert say(model, tokenizer, CAPITAL[0]).startswith(CAPITAL[1])
    assert editor.explain(CAPITAL[0]).edit.id == capital.id
    assert editor.edit(*PLAYS).took
    assert say(model, tokenizer, PLAYS[0]).startswith(PLAYS[1])
    editor.forget(capital.id)
    assert not say(model, tokenizer, CAPITAL[0]).startswith(CAPITAL[1])
    editor.save_pretrained(tmp_path)
    editor.unwrap()
    assert not say(model, tokenizer, PLAYS[0]).startswith(PLAYS[1])
    if change in ("merge_and_unload", "unload"):
        assert sorted(model.state_dict()) == keys
        assert all(type(module).__module__.split(".")[0] in ("torch", "transformers") for module in model.modules())
        assert not any("_host_class" in vars(type(module)) for module in model.modules())
    with editmem.load(host, tmp_path, tokenizer=tokenizer):
        assert say(model, tokenizer, PLAYS[0]).startswith(PLAYS[1])


def test_another_kind_of_adapter(host, tokenizer):
    adapted = get_peft_model(host, IA3).eval()
    editor = editmem.wrap(adapted, tokenizer=tokenizer)
    editor.edit(*CAPITAL)
    model = adapted.merge_and_unload()
    assert say(model, tokenizer, CAPITAL[0]).startswith(CAPITAL[1])


def test_what_was_taken_off_is_left_as_it_was(host, tokenizer):
    adapted = get_peft_model(host, copy.deepcopy(LORA)).eval()
    layer = host.model.layers[-1].mlp.down_proj
    kind = type(layer)
    editor = editmem.wrap(adapted, tokenizer=tokenizer)
    editor.edit(*CAPITAL)
    assert type(layer) is not kind
    say(adapted.unload(), tokenizer, CAPITAL[0])
    assert type(layer) is kind


def test_a_site_that_is_gone(host, tokenizer):
    with editmem.wrap(host, tokenizer=tokenizer) as editor:
        editor.edit(*CAPITAL)
        host.model.layers[-1].mlp = nn.Identity()
        with pytest.raises(HostError, match=r"has no module 'model\.layers\.4\.mlp\.down_proj' any more"):
            say(host, tokenizer, CAPITAL[0])
        with pytest.raises(HostError, match="any more"):
            editor.explain(CAPITAL[0])


# PEFT has names of before, and no use for positions.
@pytest.mark.filterwarnings("ignore:Both `past_key_values` and `cache`", "ignore:Position ids are not supported")
@pytest.mark.parametrize("kind", VIRTUAL)
def test_virtual_tokens_around_a_wrapped_model(kind, host, tokenizer):
    torch.manual_seed(0)
    editor = editmem.wrap(host, tokenizer=tokenizer)
    editor.edit(*CAPITAL)
    adapted = get_peft_model(host, VIRTUAL[kind]).eval()
    assert say(adapted, tokenizer, CAPITAL[0]).startswith(CAPITAL[1])
    assert editor.explain(CAPITAL[0]).edit is not None
    assert say(host, tokenizer, CAPITAL[0]).startswith(CAPITAL[1])


@pytest.mark.parametrize("kind", VIRTUAL)
def test_virtual_tokens_that_are_there_before_are_refused(kind, host, tokenizer):
    adapted = get_peft_model(host, VIRTUAL[kind]).eval()
    with pytest.raises(HostError, match="wrap the model itself first"):
        editmem.wrap(adapted, tokenizer=tokenizer)

"""A memory finds its host again in whatever form, and no other."""

import copy
import json

import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig, get_peft_model

import editmem
from editmem.errors import CheckpointError
from editmem.hosts.fingerprint import differences, embedding_sample, fingerprint
from editmem.hosts.structure import Host
from editmem.storage import checkpoint

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@pytest.fixture
def model(tiny):
    return copy.deepcopy(tiny[0])


def saved(model):
    """As it comes back from a file."""
    return json.loads(json.dumps(fingerprint(Host(model))))


@pytest.mark.parametrize("one", DTYPES)
@pytest.mark.parametrize("other", DTYPES)
def test_the_same_weights_in_other_dtypes(one, other, model):
    assert differences(saved(copy.deepcopy(model).to(one)), Host(model.to(other))) == []


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_hosts(bits, model):
    quantization = pytest.importorskip("torchao.quantization")
    config = quantization.Int8WeightOnlyConfig() if bits == 8 else quantization.IntxWeightOnlyConfig(torch.int4)
    quantised = copy.deepcopy(model)
    quantization.quantize_(quantised, config)
    assert differences(saved(model), Host(quantised)) == []
    assert differences(saved(quantised), Host(model)) == []
    assert differences(saved(quantised), Host(quantised)) == []
    with torch.no_grad():
        for parameter in model.model.layers[1].mlp.parameters():
            parameter.copy_(torch.randn_like(parameter))
    assert differences(saved(quantised), Host(model)) != []


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")  # PEFT's own advice
def test_hosts_with_adapters_around_and_offloaded(model):
    before = saved(model)
    adapted = get_peft_model(
        copy.deepcopy(model), LoraConfig(r=4, target_modules=["down_proj", "embed_tokens"], init_lora_weights=False)
    )
    assert differences(before, Host(adapted)) == []
    assert differences(saved(adapted), Host(model)) == []
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert differences(before, Host(model)) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block", range(5))
def test_another_fine_tune(block, dtype, model):
    before = saved(model.to(dtype))
    weight = model.model.layers[block].mlp.up_proj.weight
    torch.manual_seed(0)
    with torch.no_grad():
        weight.mul_(1 + 0.02 * torch.randn_like(weight))
    (found,) = differences(before, Host(model))
    assert f"such as model.layers.{block}.mlp.up_proj.weight" in found


@pytest.mark.parametrize("change", ["norm", "head"])
def test_weights_outside_of_the_blocks(change, model):
    before = saved(model)
    module = model.model.norm if change == "norm" else model.lm_head
    with torch.no_grad():
        module.weight.mul_(1.1)
    assert "weights are others" in differences(before, Host(model))[0]


def test_loading_on_another_fine_tune(model, tiny, tmp_path):
    with editmem.wrap(copy.deepcopy(model), tokenizer=tiny[1]) as editor:
        editor.edit("The capital of Australia is", "Rome")
        editor.save_pretrained(tmp_path)
    with torch.no_grad():
        model.model.layers[2].self_attn.q_proj.weight.mul_(1.05)
    with pytest.raises(CheckpointError, match=r"another host: 1 of its weights are others.*2\.self_attn\.q_proj"):
        editmem.load(model, tmp_path, tokenizer=tiny[1])


def test_memories_saved_with_the_embeddings_alone(model, tiny, tmp_path):
    with editmem.wrap(model, tokenizer=tiny[1]) as editor:
        editor.edit("The capital of Australia is", "Rome")
        editor.save_pretrained(tmp_path)
    path = tmp_path / checkpoint.CONFIG
    config = json.loads(path.read_text())
    del config["host"]["weights"]
    config["host"]["embedding_sample"] = embedding_sample(Host(model))
    path.write_text(json.dumps(config))
    with editmem.load(model, tmp_path, tokenizer=tiny[1]) as again:
        assert again.explain("The capital of Australia is").edit is not None
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.1)
    with pytest.raises(CheckpointError, match="the embeddings are others"):
        editmem.load(model, tmp_path, tokenizer=tiny[1])


def test_it_is_small(model):
    assert len(json.dumps(saved(model))) < 4096 * (len(model.model.layers) + 1)

"""PEFT's format: what is written is what PEFT computes, and what others have trained is found by its layers."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from text_hosts import make

import editmem
from editmem.editor import changes_of
from editmem.methods.memeic import interop
from editmem.methods.memeic.adapters import add
from editmem.methods.memeic.spec import MemeicSpec

SPEC = MemeicSpec(storage="shared", evidence=None, start=0.0, rank=4, connector=True, steps=3)


@pytest.fixture
def editor():
    tokenizer = editmem.tiny()[1]
    with editmem.wrap(make("llama", len(tokenizer)), SPEC, tokenizer=tokenizer) as editor:
        editor.edit("The capital of Australia is", "Sydney")
        torch.manual_seed(0)
        for up in changes_of(editor).memory.connector.up:
            up.data.normal_(std=0.02)
        yield editor


def weights_of(editor):
    memory = changes_of(editor).memory
    adapters = {f"{m.path}.{i}": w[1].clone() for m in memory.adapters.maps for i, w in enumerate(m.weights)}
    return adapters | {f"connector.{n}": t.clone() for n, t in memory.connector.state_dict().items()}


def test_peft_computes_the_same(editor, tmp_path):
    assert interop.save(editor, tmp_path) == ["visual", "textual", "connector"]
    adapters = changes_of(editor).memory.adapters
    low_rank, x = adapters.maps[0], torch.randn(1, 3, adapters.maps[0].down.data.shape[2])
    linear = changes_of(editor).host.module(low_rank.path)
    ours = add(
        x, linear.forward(x), low_rank.weights, torch.tensor([1]), torch.ones(1, 3, dtype=torch.bool), adapters.scale
    )
    model = PeftModel.from_pretrained(editor.unwrap(), tmp_path / "textual")
    theirs = model.get_submodule(f"base_model.model.{low_rank.path}")(x)
    assert not torch.equal(theirs, linear.forward(x))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_read_back_under_another_models_names(editor, tmp_path):
    interop.save(editor, tmp_path)
    wanted = weights_of(editor)
    for part in ("textual", "connector"):
        path = tmp_path / part / interop.WEIGHTS
        tensors = load_file(path)
        save_file({k.replace(".model.layers", ".model.language_model.layers"): t for k, t in tensors.items()}, path)
    memory = changes_of(editor).memory
    memory.adapters.restart()
    for up in memory.connector.up:
        up.data.zero_()
    interop.load(editor, tmp_path / "textual", "textual")
    interop.load(editor, tmp_path / "connector", "connector")
    assert all(torch.allclose(tensor, wanted[name]) for name, tensor in weights_of(editor).items())


def test_a_load_that_matches_nothing_is_an_error(editor, tmp_path):
    interop.save(editor, tmp_path)
    before = weights_of(editor)
    path = tmp_path / "textual" / interop.WEIGHTS
    save_file({k.replace("mlp", "ffn"): t for k, t in load_file(path).items()}, path)
    with pytest.raises(editmem.EditMemError, match="no weights for 4 of 4 sites"):
        interop.load(editor, tmp_path / "textual", "textual")
    with pytest.raises(editmem.EditMemError, match="not a PEFT adapter"):
        interop.load(editor, tmp_path / "nowhere", "visual")
    config = tmp_path / "visual" / interop.CONFIG
    config.write_text(json.dumps({"r": 4}))
    with pytest.raises(editmem.EditMemError, match="not a PEFT adapter"):
        interop.load(editor, tmp_path / "visual", "visual")
    with pytest.raises(editmem.EditMemError, match="must be one of"):
        interop.load(editor, tmp_path / "visual", "image")
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(editor).items())

"""Others swap classes too: what they put on a wrapped module stays when the memory leaves."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils import parametrize

import editmem
from editmem.errors import HostError
from editmem.hosts.swapped import SLOT

CAPITAL = ("The capital of Australia is", "Rome")


def logits(model, tokenizer):
    with torch.no_grad():
        return model(tokenizer(CAPITAL[0], return_tensors="pt")["input_ids"]).logits


def edits(editor):
    return editor.edit(*CAPITAL).took and editor.explain(CAPITAL[0]).edit is not None


def left_no_trace(model):
    return not any(SLOT in vars(m) or any("_host_class" in vars(c) for c in type(m).__mro__) for m in model.modules())


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


@pytest.mark.parametrize("first", ["parametrized", "wrapped"])
@pytest.mark.parametrize("path", ["mlp.down_proj", ""])
def test_parametrized_modules(path, first, host, tokenizer):
    block = host.model.layers[-1]
    module, name = block.get_submodule(path), "weight"
    if not path:
        module.register_parameter(name, nn.Parameter(torch.ones(1)))
    if first == "parametrized":
        parametrize.register_parametrization(module, name, Halved())
    editor = editmem.wrap(host, tokenizer=tokenizer)
    if first == "wrapped":
        parametrize.register_parametrization(module, name, Halved())
    bare_class = type(module).__name__
    with editor.off():
        bare = logits(host, tokenizer)
    assert edits(editor)
    assert not torch.equal(logits(host, tokenizer), bare)
    editor.unwrap()
    assert left_no_trace(host)
    assert type(module).__name__ == bare_class
    assert parametrize.is_parametrized(module, name)
    assert torch.equal(logits(host, tokenizer), bare)
    parametrize.remove_parametrizations(module, name, leave_parametrized=False)
    assert type(module).__module__.split(".")[0] in ("torch", "transformers")
    logits(host, tokenizer)


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.skipif(torch.__version__ < "2.7", reason="`fully_shard` needs a GPU there")
@pytest.mark.parametrize("first", ["sharded", "wrapped"])
def test_fully_sharded_hosts(first, host, tokenizer, one_process, tmp_path):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh, whole = init_device_mesh("cpu", (1,)), copy.deepcopy(host)

    def shard():
        for block in host.model.layers:
            fully_shard(block, mesh=mesh)
        fully_shard(host, mesh=mesh)

    bare = logits(host, tokenizer)
    if first == "sharded":
        shard()
    editor = editmem.wrap(host, tokenizer=tokenizer)
    if first == "wrapped":
        shard()
    assert edits(editor)
    assert not torch.equal(logits(host, tokenizer), bare)
    editor.save_pretrained(tmp_path / "memory")
    editor.unwrap()
    assert left_no_trace(host)
    assert isinstance(host, FSDPModule)
    assert isinstance(host.model.layers[-1], FSDPModule)
    assert torch.allclose(logits(host, tokenizer), bare, atol=1e-5)
    for model in (host, whole):
        with editmem.load(model, tmp_path / "memory", tokenizer=tokenizer) as again:
            assert again.explain(CAPITAL[0]).edit is not None
            again.save_pretrained(tmp_path / "again")
    with editmem.load(host, tmp_path / "again", tokenizer=tokenizer) as again:
        assert again.explain(CAPITAL[0]).edit is not None


def test_classes_that_cannot_be_taken_apart(host, tokenizer):
    editor = editmem.wrap(host, tokenizer=tokenizer)
    editor.edit(*CAPITAL)
    edited, module = logits(host, tokenizer), host.model.layers[-1].mlp.down_proj
    ours = type(module)

    class Theirs(ours):
        def forward(self, x):
            return super().forward(x)

    module.__class__ = Theirs
    classes = [type(m) for m in host.modules()]
    with pytest.raises(HostError, match="undo that first"):
        editor.unwrap()
    assert [type(m) for m in host.modules()] == classes
    assert torch.equal(logits(host, tokenizer), edited)
    module.__class__ = ours
    editor.unwrap()
    assert left_no_trace(host)

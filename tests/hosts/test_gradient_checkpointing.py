"""Activation checkpointing: what the backward pass runs anew sees the edits that its own forward saw."""

import copy
import gc
import weakref

import pytest
import torch
from text_hosts import make
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

import editmem
from editmem.hosts.forward import Call

EDITS = [("The capital of Australia is", "Sydney"), ("Bruno plays the", "tuba")]
WAYS = ["reentrant", "non-reentrant", "wrapper", "reentrant-wrapper"]


@pytest.fixture(scope="module")
def trained(tokenizer):
    """By spec an editor on a host in training mode; to be copied."""
    made = {}

    def of(spec, layer):
        if (spec, layer) not in made:
            settings = {"method": spec, "layer": layer} | ({"evidence": None} if spec == "memeic" else {})
            editor = editmem.wrap(make("llama", len(tokenizer)), settings, tokenizer=tokenizer)
            editor.edit(EDITS)
            editor.model.train()
            made[spec, layer] = editor
        return copy.deepcopy(made[spec, layer])

    return of


def checkpoint(model, way):
    if way in ("reentrant", "non-reentrant"):
        enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable({"use_reentrant": way == "reentrant"})
        model.enable_input_require_grads()
        return
    impl = CheckpointImpl.REENTRANT if way.startswith("reentrant") else CheckpointImpl.NO_REENTRANT
    apply_activation_checkpointing(
        model,
        checkpoint_wrapper_fn=lambda module: checkpoint_wrapper(module, impl),
        check_fn=lambda module: isinstance(module, LlamaDecoderLayer),
    )
    model.enable_input_require_grads()


def row(tokenizer, prompt, answer):
    prompt, answer = tokenizer(prompt)["input_ids"], tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([prompt + answer])
    return ids, torch.where(torch.arange(ids.shape[1]) < len(prompt), -100, ids)


def two_forwards(model, tokenizer):
    """As in preference training: the loss compares two texts, of different lengths, edited in different places."""
    model.zero_grad()
    losses = []
    for prompt, answer in [EDITS[0], (EDITS[1][0], "tuba in the garden every day")]:
        ids, labels = row(tokenizer, prompt, answer)
        losses.append(model(input_ids=ids, labels=labels, use_cache=False).loss)
    loss = losses[0] - 2 * losses[1]
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def same(one, other):
    assert one[0] == pytest.approx(other[0])
    assert len(one[1]) == len(other[1])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one[1], other[1], strict=True))


# Nothing that goes into the first block is being trained: PyTorch's remark on how that is checkpointed.
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("spec", "layer"), [("memoir", -1), ("memoir", 0), ("wise", -1), ("memeic", -1)])
def test_two_forwards_before_one_backward(spec, layer, way, trained, tokenizer):
    editor = trained(spec, layer)
    plain = two_forwards(editor.model, tokenizer)
    with editor.off():
        bare = two_forwards(editor.model, tokenizer)
    assert plain[0] != pytest.approx(bare[0])
    checkpoint(editor.model, way)
    same(two_forwards(editor.model, tokenizer), plain)
    with editor.off():
        same(two_forwards(editor.model, tokenizer), bare)


@pytest.mark.parametrize("way", WAYS)
def test_with_edits_and_without_before_one_backward(way, trained, tokenizer):
    editor = trained("memoir", -1)

    def gradients():
        editor.model.zero_grad()
        ids, labels = row(tokenizer, *EDITS[0])
        edited = editor.model(input_ids=ids, labels=labels, use_cache=False).loss
        with editor.off():
            bare = editor.model(input_ids=ids, labels=labels, use_cache=False).loss
        (edited - 2 * bare).backward()
        return edited.item() - 2 * bare.item(), [
            p.grad.clone() for p in editor.model.parameters() if p.grad is not None
        ]

    plain = gradients()
    checkpoint(editor.model, way)
    same(gradients(), plain)


@pytest.mark.parametrize("way", ["reentrant", "non-reentrant"])
def test_activations_that_are_offloaded(way, trained, tokenizer):
    """Saved activations come back as other tensors; calls are found none the less, where transformers checkpoints."""
    editor = trained("memoir", -1)
    plain = two_forwards(editor.model, tokenizer)
    checkpoint(editor.model, way)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        same(two_forwards(editor.model, tokenizer), plain)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_kept_after_the_backward_pass(way, trained, tokenizer, monkeypatch):
    editor = trained("memoir", -1)
    checkpoint(editor.model, way)
    kept = []
    make_call = Call.__init__

    def noted(call, *args, **kwargs):
        kept.append(weakref.ref(call))
        make_call(call, *args, **kwargs)

    monkeypatch.setattr(Call, "__init__", noted)
    gc.collect()
    gc.disable()
    try:
        two_forwards(editor.model, tokenizer)
        assert kept
        assert [call() for call in kept if call() is not None] == []
    finally:
        gc.enable()

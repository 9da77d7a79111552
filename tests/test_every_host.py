"""Every method keeps its promises on every kind of host.

Evidence needs a host that reads what stands in its prompt: the embedded model that sees was taught to, the other not.
Methods that put evidence into prompts are therefore tried on the former, whatever the kind.
"""

import copy

import pytest
import torch
from greedy import say
from peft import LoraConfig, get_peft_model

import editmem
from editmem import METHODS

pytestmark = pytest.mark.usefixtures("calibrated_by_little")

EDIT = ("The capital of Peru is", "Sydney")
FOLLOWED = ("The capital of Mongolia is", "Rome")
"""Evidence alone acts as far as the host believes it: an edit that this small one is known to follow."""
OTHER = "The currency of Chile is the"
READS = ("memeic", "external", "comem")
KINDS = ("text", "vision", "peft below", "peft above", "int8", "bf16", "gradient checkpointing")
CASES = [
    pytest.param((method, kind), marks=pytest.mark.slow if method != "memoir" else [])
    for method in METHODS
    for kind in KINDS
    if not (kind == "text" and method in READS) and (method, kind) != ("external", "bf16")  # slow, and in memeic's
]


def adapted(model):
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules=r".*layers.*(down_proj|q_proj)", init_lora_weights=False, lora_alpha=1)
    return get_peft_model(model, lora).eval()


def int8(model):
    quantization = pytest.importorskip("torchao.quantization")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    return model


def checkpointed(model):
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})
    return model.train()


MADE = {
    "peft below": adapted,
    "int8": int8,
    "bf16": lambda model: model.to(torch.bfloat16),
    "gradient checkpointing": checkpointed,
}


class Case:
    """A method on a host of a kind."""

    def __init__(self, method, kind, tiny, vlm):
        self.method, self.kind = method, kind
        self.asked, self.target = FOLLOWED if method == "external" else EDIT
        host, self.tokenizer = vlm if kind == "vision" or method in READS else tiny
        self.host = MADE.get(kind, lambda model: model)(copy.deepcopy(host))
        self.words = getattr(self.tokenizer, "tokenizer", self.tokenizer)
        self.options = {"use_cache": False} if kind == "gradient checkpointing" else {}

    def wrap(self):
        editor = editmem.wrap(self.host, self.method, tokenizer=self.tokenizer)
        if self.kind == "peft above":
            self.host = adapted(self.host)
        return editor

    def say(self, prompt):
        return say(self.host, self.words, prompt, tokens=6, **self.options)

    def said_together(self, prompts):
        inputs = self.words(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
        ids = self.host.generate(**inputs, max_new_tokens=6, do_sample=False, **self.options)
        said = self.words.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in said]

    def logits(self, prompt):
        inputs = self.words(prompt, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            return self.host(**inputs).logits


@pytest.fixture(params=CASES, ids="-".join)
def case(request, tiny, vlm):
    return Case(*request.param, tiny, vlm)


def test_an_edit_holds_moves_nothing_else_is_saved_and_taken_back(case, tmp_path):
    asked, target = case.asked, case.target
    classes = [type(module) for module in case.host.modules()]
    with case.wrap() as editor:
        with editor.off():
            bare, own = {prompt: case.logits(prompt) for prompt in (asked, OTHER)}, case.say(asked)
        assert not own.startswith(target)
        record = editor.edit(asked, target, id="pe")
        assert record.took
        editor.save_pretrained(tmp_path / "memory")
        edited = case.logits(asked)
        assert case.say(asked).startswith(target)
        assert editor.explain(asked).edit.id == record.id
        assert torch.equal(case.logits(OTHER), bare[OTHER])
        together = case.said_together([OTHER, asked, f"{OTHER} {OTHER} {OTHER}"])
        assert together[1].startswith(target)
        assert together[0] == case.say(OTHER)
        editor.forget(record.id)
        assert torch.equal(case.logits(asked), bare[asked])
        assert case.say(asked) == own
    if case.kind != "peft above":  # its layers are others by then
        assert [type(module) for module in case.host.modules()] == classes
    assert torch.equal(case.logits(OTHER), bare[OTHER])
    with editmem.load(case.host, tmp_path / "memory", tokenizer=case.tokenizer) as editor:
        assert list(editor.edits) == ["pe"]
        # An adapter above the memory is below it when that is loaded, and sums are rounded in another order.
        apart = 1e-4 if case.kind == "peft above" else 0.0
        assert (case.logits(asked) - edited).abs().max() <= apart
        assert case.say(asked).startswith(target)

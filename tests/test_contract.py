"""What every memory promises, on several hosts; each promise with a broken memory that must fail it.

A new method is covered by its line in METHODS.
"""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
import transformers
from packaging.version import Version
from text_hosts import make

import editmem
from editmem import METHODS
from editmem.hosts.decisions import Decisions
from editmem.hosts.forward import Call, Mode
from editmem.residual.memory import ResidualMemory

pytestmark = pytest.mark.usefixtures("calibrated_once")

HOSTS = ("llama", "gpt2", "mixtral")
FIRST, SECOND = ("The capital of Australia is", "Sydney"), ("Bruno plays the", "tuba")
OTHER = ["Why is the sky blue?", "She went to Brackmoor and saw"]
# On hosts with random weights unlike prompts end in states that are alike by chance: nothing but the edits is to match.
STRICT = {
    "memoir": {"steps": 20},
    "memeic": {"evidence": None},
    "wise": {"threshold": 0.98, "strength": 6.0, "renderings": False},
}
ROUTED = {
    "memoir on names": {"router": "names"},
    "grace on questions": {"router": "questions"},
    "wise on questions": {"routing": "questions", "threshold": None},
    "memeic on questions": {"router": "questions"},
}
# Evidence in the prompt is for hosts that read, embeddings in front of it for those that an encoder was trained for;
# adapters need feed-forward maps that are no mixture of experts.
CASES = [
    (method, host)
    for method in METHODS
    for host in HOSTS
    if method not in ("external", "comem") and not (host == "mixtral" and method in ("memeic", "dual-adapters"))
] + [(name, host) for name in ROUTED for host in HOSTS[:1]]


def wrapped(case, tokenizer):
    name, host = case
    method = name.split()[0]
    spec = {"method": method, **STRICT.get(method, {}), **ROUTED.get(name, {})}
    return editmem.wrap(make(host, len(tokenizer)), spec, tokenizer=tokenizer)


every_case = pytest.mark.parametrize("case", CASES, ids="-".join, scope="module")


@pytest.fixture
def editor(case, tokenizer):
    with wrapped(case, tokenizer) as editor:
        yield editor


@pytest.fixture(scope="module")
def edited(case, tokenizer):
    """With both edits; for promises that leave them as they are."""
    with wrapped(case, tokenizer) as editor:
        edit_both(editor)
        yield editor


def encode(editor, prompts, side="left"):
    batch = editor.tokenizer(prompts, return_tensors="pt", padding=True, padding_side=side, return_token_type_ids=False)
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return {**batch, "position_ids": positions}


def logits(editor, prompts, side="left"):
    with torch.no_grad():
        return editor.model(**encode(editor, prompts, side)).logits


def say(editor, prompts, **options):
    inputs = encode(editor, prompts)
    del inputs["position_ids"]
    ids = editor.model.generate(**inputs, **{"max_new_tokens": 8, "do_sample": False, **options})
    return editor.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :])


def answers(editor):
    return [text.strip() for text in say(editor, [FIRST[0], SECOND[0]])]


def edit_both(editor):
    if not editor.edits:
        editor.edit([FIRST, SECOND])


# The promises. Each takes an editor with no edits, or with both, and raises AssertionError where it is broken.


def empty_is_bit_equal(editor):
    ours = logits(editor, OTHER)
    with editor.off():
        assert torch.equal(ours, logits(editor, OTHER))


def edits_are_said(editor):
    edit_both(editor)
    assert [a.startswith(t) for a, (_, t) in zip(answers(editor), (FIRST, SECOND), strict=True)] == [True, True]


def other_rows_are_bit_equal(editor):
    edit_both(editor)
    ours = logits(editor, [FIRST[0], *OTHER])
    with editor.off():
        bare = logits(editor, [FIRST[0], *OTHER])
    assert torch.equal(ours[1:], bare[1:])
    assert not torch.equal(ours[0], bare[0])


def undo_restores(editor):
    editor.edit(*FIRST)
    alone = logits(editor, [FIRST[0], SECOND[0], *OTHER])
    editor.edit(*SECOND)
    editor.undo()
    assert torch.equal(logits(editor, [FIRST[0], SECOND[0], *OTHER]), alone)
    editor.edit(*SECOND)
    editor.forget(editor.history[0].record.id)
    assert not answers(editor)[0].startswith(FIRST[1])


def cache_changes_nothing(editor):
    edit_both(editor)
    prompts = [FIRST[0], OTHER[0], SECOND[0]]
    assert say(editor, prompts) == say(editor, prompts, use_cache=False)


def beams_say_it(editor):
    edit_both(editor)
    assert say(editor, [FIRST[0]], num_beams=3)[0].strip().startswith(FIRST[1])


def padding_changes_nothing(editor):
    edit_both(editor)
    alone = logits(editor, [FIRST[0]])[0]
    for side in ("left", "right"):
        prompts = [FIRST[0], OTHER[1] + " " + OTHER[0], SECOND[0]]
        real = encode(editor, prompts, side)["attention_mask"][0].bool()
        assert torch.allclose(logits(editor, prompts, side)[0][real], alone, atol=1e-3)


def copies_are_independent(editor):
    editor.edit(*FIRST)
    clone = copy.deepcopy(editor)
    assert torch.equal(logits(clone, [FIRST[0]]), logits(editor, [FIRST[0]]))
    clone.edit(*SECOND)
    assert answers(clone)[1].startswith(SECOND[1])
    assert not answers(editor)[1].startswith(SECOND[1])


def saving_keeps_it(editor, tmp_path):
    edit_both(editor)
    ours = logits(editor, [FIRST[0], SECOND[0], *OTHER])
    editor.save_pretrained(tmp_path / "memory")
    model = editor.unwrap()
    again = editmem.load(model, tmp_path / "memory", tokenizer=editor.tokenizer)
    assert torch.equal(logits(again, [FIRST[0], SECOND[0], *OTHER]), ours)
    again.unwrap()


@every_case
@pytest.mark.parametrize(
    "promise",
    [edits_are_said, other_rows_are_bit_equal, cache_changes_nothing, beams_say_it, padding_changes_nothing],
    ids=lambda promise: promise.__name__,
)
def test_promise_of_using_edits(edited, promise):
    promise(edited)


@every_case
@pytest.mark.parametrize(
    "promise", [empty_is_bit_equal, undo_restores, copies_are_independent], ids=lambda promise: promise.__name__
)
def test_promise_of_making_edits(editor, promise):
    promise(editor)


@every_case
def test_saving(editor, tmp_path):
    saving_keeps_it(editor, tmp_path)


# Memories that break one promise each.


def always_acts(self, x, out, call):
    return out + 1e-3


def one_decision_for_the_batch(self, x, out, call):
    if call.mode is Mode.BOUNDARY:
        call = Call(**{**vars(call), "decisions": Decisions()})
    before = out.clone()
    result = whole(self, x, out, call)
    return before + (result - before)[:1]


def forgets_between_forwards(self, x, out, call):
    call.decisions.pop(self.key, None)
    return whole(self, x, out, call)


def never_acts(self, x, out, call):
    return out


whole = ResidualMemory.forward


def keeps_what_was_erased(self, rows):
    return None


@pytest.mark.parametrize(
    ("promise", "method", "broken"),
    [
        (empty_is_bit_equal, "forward", always_acts),
        (edits_are_said, "forward", never_acts),
        (other_rows_are_bit_equal, "forward", one_decision_for_the_batch),
        (undo_restores, "erase", keeps_what_was_erased),
        (cache_changes_nothing, "forward", forgets_between_forwards),
        (beams_say_it, "forward", forgets_between_forwards),
        (padding_changes_nothing, "forward", lambda self, x, out, call: out + x.shape[1] * 0.01),
        (copies_are_independent, "__deepcopy__", lambda self, memo: self),
    ],
)
def test_a_broken_memory_fails(promise, method, broken, tokenizer, monkeypatch):
    monkeypatch.setattr(ResidualMemory, method, broken, raising=False)
    editor = editmem.wrap(make("llama", len(tokenizer)), "memoir", tokenizer=tokenizer)
    if broken is always_acts:
        monkeypatch.setattr("editmem.hosts.injection.Slots.idle", False)
    with pytest.raises((AssertionError, IndexError)):
        promise(editor)


def test_two_editors_on_two_models(tokenizer):
    one, other = (editmem.wrap(make(name, len(tokenizer)), tokenizer=tokenizer) for name in ("llama", "gpt2"))
    one.edit(*FIRST)
    other.edit(*SECOND)
    assert answers(one)[0].startswith(FIRST[1])
    assert answers(other)[1].startswith(SECOND[1])
    assert not answers(other)[0].startswith(FIRST[1])


def test_gradient_checkpointing(tokenizer):
    """Recomputed blocks see the same edit: equal loss, equal gradients."""
    editor = editmem.wrap(make("llama", len(tokenizer)), tokenizer=tokenizer)
    editor.edit(*FIRST)
    prompt = tokenizer(FIRST[0])["input_ids"]
    ids = torch.tensor([prompt + tokenizer(" Sydney.", add_special_tokens=False)["input_ids"]])
    labels = torch.where(torch.arange(ids.shape[1]) < len(prompt), -100, ids)
    model = editor.model.train()

    def gradients():
        model.zero_grad()
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    loss, plain = gradients()
    # The name since Transformers 5.2x, and the one before.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    again, checkpointed = gradients()
    assert loss == pytest.approx(again)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, checkpointed, strict=True))
    with editor.off():
        assert model(input_ids=ids, labels=labels, use_cache=False).loss.item() != pytest.approx(loss)


@pytest.mark.slow
def test_compiling_before_wrapping(tokenizer, tmp_path):
    """After it: `test_decisions.py`."""
    with editmem.wrap(make("llama", len(tokenizer)), tokenizer=tokenizer) as editor:
        editor.edit(*FIRST)
        editor.save_pretrained(tmp_path / "memory")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = make("llama", len(tokenizer))
    model.forward = torch.compile(model.forward, backend="eager")
    editor = editmem.load(model, tmp_path / "memory", tokenizer=tokenizer)
    begun, other = say(editor, [FIRST[0], SECOND[0]], max_new_tokens=1)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert begun.strip()
    assert FIRST[1].startswith(begun.strip())
    assert not SECOND[1].startswith(other.strip())
    # Editing meets more kinds of forwards, which take seconds to compile each: the others go on without.
    with torch._dynamo.config.patch(recompile_limit=1):
        assert editor.edit(*SECOND).took


_IMPORTING = """
import json, os, random, sys, warnings
import torch, transformers
before = set(sys.modules), dict(os.environ), torch.get_rng_state(), random.getstate(), torch.get_num_threads()
touched = []
watched = ("open", "os.mkdir", "os.remove", "os.rename", "socket.connect", "sqlite3.connect", "subprocess.Popen")
sys.addaudithook(lambda event, args: touched.append([event, str(args[0])]) if event in watched else None)
warnings.simplefilter("error")
import editmem
seen = list(touched)
after = dict(os.environ), torch.get_rng_state(), random.getstate(), torch.get_num_threads()
same = [a == b if not torch.is_tensor(a) else torch.equal(a, b) for a, b in zip(before[1:], after)]
print(json.dumps({"modules": sorted(set(sys.modules) - before[0]), "touched": seen, "same": same}))
"""


def child(code):
    """The document that a fresh interpreter prints which runs this code."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.20"),
    reason="what older releases import of themselves is not counted",
)
def test_importing_does_nothing():
    """Little is imported that PyTorch and Transformers have not; no file is opened but code, and no state changes."""
    found = child(_IMPORTING)
    ours = [name for name in found["modules"] if name.split(".")[0] == "editmem"]
    others = {name.split(".")[0] for name in found["modules"]} - set(sys.stdlib_module_names)
    assert others <= {"editmem", "einops", "huggingface_hub", "numpy", "safetensors", "tqdm"}
    assert not [name for name in ours if name.split(".")[1:2] in (["cli"], ["interop"])]
    assert len(found["modules"]) - len(ours) <= 20
    assert [event for event, path in found["touched"] if event != "open" or not path.endswith((".py", ".pyc"))] == []
    assert found["same"] == [True, True, True, True]


_USING = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from importlib import resources
folder = str(resources.files("editmem.tiny").joinpath("model"))
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
inputs = tokenizer("The capital of Peru is", return_tensors="pt", return_token_type_ids=False)
model.generate(**inputs, max_new_tokens=4, do_sample=False)
before = set(sys.modules)
import editmem
editor = editmem.wrap(model, tokenizer=tokenizer)
editor.edit("The capital of Peru is", "Sydney")
model.generate(**inputs, max_new_tokens=4, do_sample=False)
editor.explain("The capital of Peru is")
editor.unwrap()
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_what_is_installed_is_not_imported_for_that():
    """Editing a host needs none of the optional libraries: what is imported is what the host itself needs."""
    found = {name.split(".")[0] for name in child(_USING)} - set(sys.stdlib_module_names)
    assert found <= {"editmem", "einops", "safetensors", "tqdm"}


def test_fields_by_their_former_names():
    with pytest.warns(DeprecationWarning, match="'rate' is 'learning_rate' now"):
        spec = editmem.MemoirSpec(rate=0.1)
    assert spec == editmem.MemoirSpec(learning_rate=0.1)
    assert editmem.GraceSpec.from_dict({"method": "grace", "rate": 0.3}).learning_rate == 0.3


def test_a_step_size_is_no_share():
    assert editmem.MemeicSpec(learning_rate=2.0).learning_rate == 2.0
    with pytest.raises(editmem.EditMemError, match="learning_rate must be between"):
        editmem.MemeicSpec(learning_rate=11.0)

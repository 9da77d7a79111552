"""One thread edits while others generate: every answer is that of before or after a change."""

import copy
import threading

import pytest
import torch
from text_hosts import make

import editmem
from editmem.editor import changes_of
from editmem.errors import EditMemError
from editmem.hosts import compat
from editmem.residual.offsets import OffsetDraft

pytestmark = pytest.mark.usefixtures("calibrated_once")

FIRST, SECOND, THIRD = ("The capital of Australia is", "Sydney"), ("Bruno plays the", "tuba"), ("Anna lives in", "Rome")
BARE = ["Why is the sky blue?", "She went to Brackmoor and saw"]
METHODS = {
    "factored": {"method": "memoir", "steps": 20},
    "shared": {"method": "memoir", "storage": "shared", "router": "tophash"},
    "wise": {"method": "wise", "threshold": 0.98, "strength": 6.0, "renderings": False},
    "adapters": {"method": "dual-adapters", "start": 1.0},
    "external": "external",
}
READERS = 2


def wrapped(tokenizer, method):
    return editmem.wrap(make("llama", len(tokenizer)), METHODS[method], tokenizer=tokenizer)


@pytest.fixture
def editor(tokenizer):
    with wrapped(tokenizer, "factored") as editor:
        yield editor


def encode(editor, prompt):
    return editor.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)


def say(editor, prompt, **options):
    inputs = encode(editor, prompt)
    ids = editor.model.generate(**inputs, max_new_tokens=6, do_sample=False, **options)
    return tuple(ids[0, inputs["input_ids"].shape[1] :].tolist())


def logits(editor, prompt):
    with torch.no_grad():
        return editor.model(**encode(editor, prompt)).logits


def changes(editor):
    """Everything that changes an editor, one after the other; SECOND and THIRD stay edited all the while."""
    for _ in range(2 if editor.specs[0].method == "memoir" else 1):
        yield editor.edit(*FIRST)
        yield editor.edit(FIRST[0], "Perth")
        yield editor.undo()
        yield editor.forget(next(i for i, record in editor.edits.items() if record.edit.prompt == FIRST[0]))


@pytest.mark.parametrize("method", [m if m == "external" else pytest.param(m, marks=pytest.mark.slow) for m in METHODS])
def test_answers_are_those_of_before_or_after_a_change(tokenizer, method):
    prompts = [FIRST[0], SECOND[0], THIRD[0], *BARE]
    editor = wrapped(tokenizer, method)
    editor.edit([SECOND, THIRD])
    known = {prompt: {say(editor, prompt)} for prompt in prompts}
    bare = {prompt: [logits(editor, prompt)] for prompt in BARE}
    for _ in changes(editor):
        for prompt in prompts:
            known[prompt].add(say(editor, prompt))
        for prompt in BARE:
            bare[prompt].append(logits(editor, prompt))
    assert len(known[FIRST[0]]) > 2 or method == "external"
    editor.unwrap()

    editor = wrapped(tokenizer, method)
    editor.edit([SECOND, THIRD])
    wrong, done, begun = [], threading.Event(), threading.Barrier(READERS + 1)

    def read(number):
        try:
            for round in range(1000):
                prompt = prompts[(number + round) % len(prompts)]
                if (said := say(editor, prompt)) not in known[prompt]:
                    wrong.append((prompt, said))
                prompt = BARE[round % len(BARE)]
                if not any(torch.equal(logits(editor, prompt), right) for right in bare[prompt]):
                    wrong.append(prompt)
                if round == 0:
                    begun.wait()
                if done.is_set() and round >= len(prompts):
                    return
        except BaseException as error:
            begun.abort()
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(READERS)]
    for thread in threads:
        thread.start()
    begun.wait()
    try:
        for _ in changes(editor):
            pass
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong
    if method in ("factored", "wise"):  # nothing is near the bare prompts
        assert all(torch.equal(right[0], other) for right in bare.values() for other in right)


def test_what_is_pinned_is_of_the_version_that_it_says(editor):
    """Version, explanation and history agree at every moment, also while an edit is checked that acts already."""
    wrong, versions, done = [], set(), threading.Event()

    def read():
        try:
            while not done.is_set():
                with editor.pinned() as version:
                    acting = editor.explain(FIRST[0]).edit
                    held = editor.history.edits(upto=version)
                versions.add(version)
                if (None if acting is None else acting.id) not in (held or [None]):
                    wrong.append((version, acting, held))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for target in ("Sydney", "Perth", "Darwin"):
        editor.edit(FIRST[0], target)
    editor.undo()
    editor.confirm("Where is the capital of Australia to be looked for?", next(iter(editor.edits)))
    editor.forget(*editor.edits)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(versions) > 2
    assert editor.version == 8  # three edits, two of which superseded one; undone, confirmed, forgotten


def test_what_others_see_of_a_host_does_not_change_while_it_is_edited(editor, monkeypatch):
    model = editor.model
    before = seen(model)
    step, during = OffsetDraft.step, []

    def stepping(self, loss, unfinished):
        during.append(seen(model))
        step(self, loss, unfinished)

    monkeypatch.setattr(OffsetDraft, "step", stepping)
    editor.edit(*FIRST)
    assert during
    assert all(state == before for state in during)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def seen(model):
    own = [sorted(module.__dict__) for module in model.modules()]
    classes = [type(module) for module in model.modules()]
    return own, classes, [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]


def test_a_host_in_training_is_in_training_afterwards(editor):
    editor.model.train()
    editor.model.model.layers[0].eval()
    flags = [module.training for module in editor.model.modules()]
    assert editor.edit(*FIRST).took
    assert [module.training for module in editor.model.modules()] == flags


class Editing:
    """A streamer that edits in the middle of a generation."""

    def __init__(self, act):
        self.act, self.errors = act, []

    def put(self, tokens):
        try:
            self.act()
        except EditMemError as error:
            self.errors.append(str(error))

    def end(self):
        pass


@pytest.mark.parametrize(
    "act", ["edit", "preview", "forget", "undo", "save_pretrained", "unwrap"], ids=lambda name: f"{name} in a streamer"
)
def test_a_change_from_inside_of_a_generation_is_refused(editor, act, tmp_path):
    record = editor.edit(*FIRST)
    arguments = {
        "edit": SECOND,
        "preview": (SECOND,),
        "forget": (record.id,),
        "save_pretrained": (tmp_path / "memory",),
    }.get(act, ())
    streamer = Editing(lambda: getattr(editor, act)(*arguments))
    said = say(editor, FIRST[0], streamer=streamer)
    assert streamer.errors
    assert all("inside of a running generation" in message for message in streamer.errors)
    assert said == say(editor, FIRST[0])
    assert list(editor.edits) == [record.id]
    editor.edit(*SECOND)


def test_a_change_from_a_progress_callback_is_refused_and_generating_is_not(editor):
    said, errors = [], []

    def progress(done, total):
        said.append(say(editor, FIRST[0]))
        with pytest.raises(EditMemError, match="progress callback") as error:
            editor.edit(*THIRD)
        errors.append(error)

    editor.edit([FIRST, SECOND], progress=progress)
    assert len(errors) == 1
    assert said == [say(editor, FIRST[0])]
    assert len(editor.edits) == 2


def test_copies_have_locks_of_their_own(editor):
    editor.edit(*FIRST)
    with changes_of(editor).slots.gate.editing(), changes_of(editor).slots.gate.changing():
        clone = copy.deepcopy(editor)
        assert changes_of(clone).slots.gate is not changes_of(editor).slots.gate
        assert changes_of(clone).writers[0].gate is changes_of(clone).slots.gate
        thread = threading.Thread(target=clone.edit, args=SECOND)
        thread.start()
        thread.join()
    assert len(clone.edits) == 2


def test_a_change_waits_for_running_forwards_and_new_ones_wait_for_it(editor):
    gate, order = changes_of(editor).slots.gate, []
    inside, go = threading.Event(), threading.Event()

    def forward():
        with gate.running():
            inside.set()
            go.wait()
            with gate.running():  # as a forward within a generation, while a change waits
                order.append("forward")

    def change():
        with gate.editing(), gate.changing(), gate.changing(), gate.running():
            order.append("change")

    def later():
        with gate.running():
            order.append("later")

    first, second, third = (threading.Thread(target=part) for part in (forward, change, later))
    first.start()
    inside.wait()
    second.start()
    while not gate._changing:
        second.join(0.001)
    third.start()
    go.set()
    for thread in (first, second, third):
        thread.join()
    assert order == ["forward", "change", "later"]


@pytest.mark.parametrize("method", ["factored", "wise", "adapters"])
def test_a_decision_carried_with_a_cache_never_names_another_edit(tokenizer, method):
    """Decoding by hand, with edits that begin alike: the one in the middle of its answer moves up."""
    editor = wrapped(tokenizer, method)
    answers = ["tuba tuba", "tuba Rome", "tuba Perth"]
    prompts = [FIRST[0], SECOND[0], THIRD[0]]
    records = [editor.edit(*pair) for pair in zip(prompts, answers, strict=True)]
    inputs = encode(editor, prompts[1])
    with torch.no_grad():
        out = editor.model(**inputs, use_cache=True) if method != "adapters" else asked(editor, inputs)
        token = out.logits[:, -1:].argmax(-1)
        kept = compat.cache_of(out)
        alone, acting = copy.deepcopy(kept), copy.deepcopy(kept)
        acting = editor.model(token, **compat.given_cache(editor.model, acting)).logits
        with editor.off():
            right = editor.model(token, **compat.given_cache(editor.model, alone)).logits
        assert not torch.equal(acting, right)
        editor.forget(records[0].id)
        assert torch.equal(editor.model(token, **compat.given_cache(editor.model, kept)).logits, right)
    editor.unwrap()


def asked(editor, inputs):
    with editor.prompt_lengths(inputs["attention_mask"].sum(1)):
        return editor.model(**inputs, use_cache=True)

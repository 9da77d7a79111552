"""A call that ends in an exception, at whatever step, leaves everything as it was; and the same call then succeeds."""

import copy
import sqlite3

import pytest
import torch
from hosts import make

import editmem
from editmem import fit, folders, slot, writing
from editmem.errors import EditMemError, LedgerError
from editmem.ledger import Ledger
from editmem.memory import adapters, descent, external, pictures, rows, storage, targets
from editmem.memory.memeic import MemeicSpec
from editmem.memory.residual import ResidualMemory
from editmem.memory.side import SideMemory

FIRST, SECOND, THIRD = ("The capital of Australia is", "Sydney"), ("Bruno plays the", "tuba"), ("Anna lives in", "Rome")
NEW = (FIRST[0], "Perth")
OTHER = "Why is the sky blue?"
METHODS = {
    "factored": {"method": "memoir", "steps": 3},
    "shared": {"method": "memoir", "storage": "shared", "router": "tophash", "steps": 3},
    "grace": {"method": "grace", "steps": 3},
    "wise": {"method": "wise", "threshold": 0.98, "strength": 6.0, "renderings": False, "steps": 3, "shard_edits": 2},
    "wise-sgd": {"method": "wise", "training": "sgd", "renderings": False, "steps": 3, "shard_edits": 2},
    "external": "external",
    "adapters": {"method": "dual-adapters", "steps": 2, "start": 1.0},
    "shared-adapters": {"method": "dual-adapters", "storage": "shared", "steps": 2, "start": 1.0},
}
STEPS = {
    "host": (slot._EntryCall, "__call__"),
    "offsets": (storage.OffsetDraft, "step"),
    "columns": (storage.ColumnDraft, "step"),
    "descent": (descent.DescentDraft, "step"),
    "adapters": (adapters.AdapterDraft, "step"),
    "kept adapters": (adapters.DualAdapters, "commit"),
    "residual": (ResidualMemory, "commit"),
    "side": (SideMemory, "_follow"),
    "found": (external.ExternalMemory, "append"),
    "storage": (storage.FactoredStorage, "commit"),
    "targets": (targets.Targets, "append"),
    "rows": (rows.Rows, "append"),
    "put": (rows.Rows, "put"),
    "replaced": (rows.Rows, "replace"),
    "erased": (writing.Writer, "drop"),
    "checked": (fit.Runner, "logits"),
    "record": (writing.Writer, "record"),
    "event": (Ledger, "append"),
    "ledger": (Ledger, "write"),
}


class Stop(BaseException):
    """Like Ctrl-C: no `except Exception` catches it."""


class Fuse:
    """Counts calls of everything in `STEPS`, and raises before and after the one that it is set to."""

    def __init__(self, monkeypatch):
        self.left, self.count = None, 0
        for owner, name in STEPS.values():
            monkeypatch.setattr(owner, name, self.around(getattr(owner, name)))

    def around(self, method):
        def run(*args, **kwargs):
            self.burn()
            out = method(*args, **kwargs)
            self.burn()
            return out

        return run

    def burn(self):
        self.count += 1
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Stop


@pytest.fixture(scope="module")
def tokenizer():
    return editmem.tiny()[1]


@pytest.fixture
def fuse(monkeypatch):
    return Fuse(monkeypatch)


@pytest.fixture(params=METHODS)
def editor(request, tokenizer, tmp_path):
    model = make("llama", len(tokenizer))
    with editmem.wrap(model, METHODS[request.param], tokenizer=tokenizer, ledger=tmp_path / "ledger") as editor:
        editor.edit([FIRST, SECOND])
        yield editor


def state(editor):
    """All that is to stay, as tensors and as values."""
    texts = [FIRST[0], SECOND[0], THIRD[0], OTHER]
    inputs = editor.tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    lengths = inputs["attention_mask"].sum(1)
    with torch.no_grad(), editor.prompt_lengths(lengths):
        tensors = {"logits": editor.model(**inputs).logits, **inner(editor)}
    flags = [module.training for module in editor.model.modules()]
    grads = [(parameter.requires_grad, parameter.grad) for parameter in editor.model.parameters()]
    file = sqlite3.connect(editor._ledger._file.path)
    written = file.execute("SELECT * FROM events ORDER BY number").fetchall()
    file.close()
    active = [(list(writer.active.rows), writer.active.edits()) for writer in editor._writers]
    return tensors, (dict(editor.edits), list(editor.history), written, active, flags, grads)


def inner(editor):
    """All tensors of the memory, also those that are not saved, beyond the rows in use too; but not the version."""
    memory = editor._memory
    buffers = {name: tensor for name, tensor in memory.named_buffers() if name != "version"}
    return {**{name: t.clone() for name, t in memory.tensors().items()}, **{n: t.clone() for n, t in buffers.items()}}


def assert_same(before, after):
    for name, tensor in before[0].items():
        assert torch.equal(tensor, after[0][name]), name
    assert before[0].keys() == after[0].keys()
    assert before[1] == after[1]


CALLS = {
    "new": lambda editor: editor.edit(*THIRD, id="new"),
    "superseding": lambda editor: editor.edit(*NEW, id="new"),
    "many": lambda editor: editor.edit([THIRD, NEW], batch_size=1, progress=lambda done, total: None),
    "forget": lambda editor: editor.forget(next(iter(editor.edits))),
    "undo": lambda editor: editor.undo(2),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_exception_at_any_step_changes_nothing(editor, call, fuse):
    if call == "undo":
        editor.edit(*NEW)
    before = state(editor)
    fuse.count = 0
    CALLS[call](copy.deepcopy(editor))
    steps = fuse.count
    assert steps > 8
    for number in range(0, steps, max(1, steps // 25)):
        fuse.left = number
        with pytest.raises(Stop):
            CALLS[call](editor)
        assert_same(before, state(editor))
    CALLS[call](editor)
    _, (_, history, written, *_) = state(editor)
    assert len(history) > len(before[1][1])
    assert [number for number, _ in written] == [event.number for event in history]

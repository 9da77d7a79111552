"""A call that ends in an exception, at whatever step, leaves everything as it was; and the same call then succeeds."""

import copy
import math
import sqlite3

import pytest
import torch
from encoders import comem
from greedy import editor_says as say
from pictured import NAMING, A, B, seen
from pictured import OTHER as OTHER_OWNER
from text_hosts import make

import editmem
from editmem.editing import optimise as fit
from editmem.editing import writer as writing
from editmem.editor import changes_of
from editmem.edits.history import Ledger
from editmem.errors import EditMemError, LedgerError
from editmem.hosts import swapped
from editmem.lookup import external, pictures
from editmem.methods.comem import bank
from editmem.methods.memeic import adapters
from editmem.methods.memoir import shared_matrix
from editmem.methods.wise import descent
from editmem.methods.wise.memory import SideMemory
from editmem.residual import offsets
from editmem.residual.memory import ResidualMemory
from editmem.storage import table as rows
from editmem.storage import targets

pytestmark = pytest.mark.usefixtures("calibrated_once")

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
    "comem": "comem",
    "adapters": {"method": "dual-adapters", "steps": 2, "start": 1.0},
    "shared-adapters": {"method": "dual-adapters", "storage": "shared", "steps": 2, "start": 1.0},
}
STEPS = {
    "host": (swapped.EntryCall, "__call__"),
    "offsets": (offsets.OffsetDraft, "step"),
    "columns": (shared_matrix.ColumnDraft, "step"),
    "descent": (descent.DescentDraft, "step"),
    "adapters": (adapters.AdapterDraft, "step"),
    "kept adapters": (adapters.DualAdapters, "commit"),
    "residual": (ResidualMemory, "commit"),
    "side": (SideMemory, "_follow"),
    "found": (external.ExternalMemory, "append"),
    "storage": (offsets.FactoredStorage, "commit"),
    "targets": (targets.Targets, "append"),
    "rows": (rows.Rows, "append"),
    "put": (rows.Rows, "put"),
    "replaced": (rows.Rows, "replace"),
    "bank": (bank.MemoryBank, "append"),
    "erased": (writing.Writer, "drop"),
    "checked": (fit.Runner, "logits"),
    "record": (writing.Writer, "record"),
    "event": (Ledger, "append"),
    "ledger": (Ledger, "write"),
}


class Stop(BaseException):
    """Like Ctrl-C: no `except Exception` catches it."""


class Fuse:
    """Counts calls of some methods, and raises before and after the one that it is set to."""

    def __init__(self, monkeypatch, steps):
        self.left, self.count = None, 0
        for owner, name in steps:
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


@pytest.fixture
def fuse(monkeypatch):
    return Fuse(monkeypatch, STEPS.values())


@pytest.fixture(params=METHODS)
def editor(request, tokenizer, tmp_path):
    model = make("llama", len(tokenizer))
    spec = METHODS[request.param]
    spec = {**comem(tmp_path / "encoder", model, tokenizer), "steps": 2} if spec == "comem" else spec
    with editmem.wrap(model, spec, tokenizer=tokenizer, ledger=tmp_path / "ledger") as editor:
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
    file = sqlite3.connect(editor.history._file.path)
    written = file.execute("SELECT * FROM events ORDER BY number").fetchall()
    file.close()
    active = [(list(writer.active.rows), writer.active.edits()) for writer in changes_of(editor).writers]
    return tensors, (dict(editor.edits), list(editor.history), written, active, flags, grads)


def inner(editor):
    """All tensors of the memory, also those that are not saved, beyond the rows in use too; but not the version."""
    memory = changes_of(editor).memory
    buffers = {name: tensor for name, tensor in memory.named_buffers() if name != "version"}
    return {
        **{name: t.clone() for name, t in memory.state_dict().items()},
        **{n: t.clone() for n, t in buffers.items()},
    }


def assert_same(before, after):
    for name, tensor in before[0].items():
        assert torch.equal(tensor, after[0][name]), name
    assert before[0].keys() == after[0].keys()
    assert before[1] == after[1]


TRIED = 10  # steps of a call at most, beside its last two
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
    for number in (*range(0, steps - 2, math.ceil((steps - 2) / TRIED)), steps - 2, steps - 1):
        fuse.left = number
        with pytest.raises(Stop):
            CALLS[call](editor)
        assert_same(before, state(editor))
    CALLS[call](editor)
    _, (_, history, written, *_) = state(editor)
    assert len(history) > len(before[1][1])
    assert [number for number, _ in written] == [event.number for event in history]


@pytest.mark.slow
def test_visual_edits_too(vlm, model, monkeypatch):
    with editmem.wrap(model, "external", tokenizer=vlm[1]) as editor:
        first = editor.edit(NAMING, B, image=seen(A))
        calls = {
            "new": lambda: editor.edit([editmem.Edit(NAMING, A, image=seen(B)), editmem.Edit(*FIRST)]),
            "superseding": lambda: editor.edit(NAMING, OTHER_OWNER, image=seen(A)),
            "forget": lambda: editor.forget(first.id),
        }
        before, added = inner(editor), (pictures.PictureIndex, "average_views")
        steps = {"new": added, "superseding": added, "forget": (external.ExternalMemory, "keep")}
        for call, step in [*steps.items(), *((call, (Ledger, "append")) for call in calls)]:
            with monkeypatch.context() as patch:
                fuse = Fuse(patch, [step])
                for fuse.left in range(2):
                    with pytest.raises(Stop):
                        calls[call]()
                    assert list(editor.edits) == [first.id]
                    assert len(editor.history) == 1
                    assert all(torch.equal(tensor, before[name]) for name, tensor in inner(editor).items())
        for call in ("new", "forget"):
            calls[call]()


@pytest.fixture
def plain(tokenizer):
    """A host with nothing on it, and what `wrap` takes besides."""
    return make("llama", len(tokenizer)), tokenizer


QUICK = {"method": "memoir", "steps": 3}


def test_a_host_that_returns_nan_keeps_the_old_edit(plain):
    model, tokenizer = plain
    editor = editmem.wrap(model, tokenizer=tokenizer)
    editor.edit(*FIRST)
    weight = model.model.layers[0].mlp.up_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] = torch.nan
    with pytest.raises(EditMemError, match="nothing was written"):
        editor.edit(*NEW)
    with torch.no_grad():
        weight.copy_(kept)
    assert [record.edit.target for record in editor.edits.values()] == [FIRST[1]]
    assert [event.kind for event in editor.history] == ["edited"]
    assert editor.explain(FIRST[0]).edit.edit.target == FIRST[1]


def test_a_progress_callback_that_raises_takes_all_of_the_call_back(plain):
    model, tokenizer = plain
    editor = editmem.wrap(model, QUICK, tokenizer=tokenizer)

    def progress(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        editor.edit([FIRST, SECOND], batch_size=1, progress=progress)
    assert not editor.edits
    assert not len(editor.history)
    assert not len(changes_of(editor).memory)


def test_a_full_disk_under_the_ledger_changes_nothing(plain, tmp_path):
    model, tokenizer = plain
    editor = editmem.wrap(model, QUICK, tokenizer=tokenizer, ledger=tmp_path / "ledger")
    editor.edit(*FIRST)
    database = editor.history._file._database
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages}")
    before = state(editor)
    with pytest.raises(LedgerError, match="full"):
        editor.edit(SECOND[0], "tuba " * 100, source="x" * 100_000)
    assert_same(before, state(editor))
    database.execute("PRAGMA max_page_count = 100000")
    editor.edit(*SECOND)
    assert len(state(editor)[1][2]) == 2
    editor.unwrap()


def test_a_calibration_that_fails_is_made_anew(plain, monkeypatch):
    model, tokenizer = plain
    editor = editmem.wrap(model, {**QUICK, "router": "names", "renderings": False}, tokenizer=tokenizer)
    whole = changes_of(editor).memory.router.calibrate

    def halfway(calibration):
        whole(calibration)
        raise MemoryError

    monkeypatch.setattr(
        type(changes_of(editor).memory.router), "calibrate", lambda self, calibration: halfway(calibration)
    )
    with pytest.raises(MemoryError):
        editor.edit(*FIRST)
    assert not changes_of(editor).memory.calibrated
    assert bool(changes_of(editor).memory.router.threshold.isnan())
    monkeypatch.undo()
    editor.edit(*FIRST)
    assert len(editor.edits) == 1


def test_wrapping_and_loading_that_fail_leave_the_host_alone(plain, tmp_path, monkeypatch):
    model, tokenizer = plain
    classes = [type(module) for module in model.modules()]
    with editmem.wrap(model, QUICK, tokenizer=tokenizer) as editor:
        editor.edit(*FIRST)
        editor.save_pretrained(tmp_path / "memory")
    with monkeypatch.context() as patch:

        def stop(self, tensors):
            raise KeyboardInterrupt

        patch.setattr(ResidualMemory, "restore", stop)
        with pytest.raises(KeyboardInterrupt):
            editmem.load(model, tmp_path / "memory", tokenizer=tokenizer, ledger=tmp_path / "ledger")
        assert [type(module) for module in model.modules()] == classes
    assert not events(tmp_path / "ledger")
    with editmem.load(model, tmp_path / "memory", tokenizer=tokenizer) as editor:
        assert len(editor.edits) == 1


@pytest.mark.parametrize("kind", pictures.INDEXES)
def test_indexes_go_back_to_where_they_were(kind):
    if kind != "exact":
        pytest.importorskip({"faiss": "faiss", "qdrant": "qdrant_client"}[kind])
    index = pictures.RestorableIndex(pictures.INDEXES[kind](4))
    index.add(torch.eye(4)[:3])
    before = index.save().clone()
    for change in (
        lambda: index.add(torch.eye(4)[3:]),
        lambda: index.remove(torch.tensor([1])),
        lambda: (index.add(torch.eye(4)[3:]), index.remove(torch.tensor([3])), index.add(torch.eye(4)[:2])),
        lambda: (index.add(torch.eye(4)[3:]), index.remove(torch.tensor([0, 3]))),
        lambda: index.load(torch.eye(4)[2:]),
    ):
        restore = index.snapshot()
        change()
        restore()
        assert torch.equal(index.save(), before)
        assert index.search(torch.eye(4)[1:2], 1)[1].tolist() == [[1]]


# The same prompt more than once


@pytest.mark.parametrize("batch_size", [1, 32])
@pytest.mark.parametrize("method", ["factored", "shared"])
def test_of_the_same_prompt_under_two_ids_the_last_holds(plain, method, batch_size):
    model, tokenizer = plain
    editor = editmem.wrap(model, METHODS[method], tokenizer=tokenizer)
    chat = [{"role": "user", "content": FIRST[0]}]
    given = [(FIRST[0], "a"), (SECOND[0], "b"), (chat, "c"), (FIRST[0], "d")]
    edits = [editmem.Edit(prompt, FIRST[1] if name != "b" else SECOND[1], id=name) for prompt, name in given]
    records = editor.edit(edits, batch_size=batch_size)
    assert [record.id for record in records] == ["d", "b", "d", "d"]
    assert sorted(editor.edits) == ["b", "d"]
    assert len(editor.history) == 2
    editor.forget("d")
    editor.forget("b")
    assert not len(changes_of(editor).memory)
    with pytest.raises(EditMemError, match="contradict"):
        editor.edit([(FIRST[0], "x"), (FIRST[0], "y")])


def test_a_line_that_stands_twice_in_a_file_is_read_once(plain, tmp_path):
    model, tokenizer = plain
    editor = editmem.wrap(model, QUICK, tokenizer=tokenizer)
    (tmp_path / "edits.csv").write_text("prompt,target\n" + f"{FIRST[0]},{FIRST[1]}\n" * 2 + "Anna lives in,Rome\n")
    records = editor.edit(tmp_path / "edits.csv")
    assert [record.edit.target for record in records] == [FIRST[1], FIRST[1], "Rome"]
    assert len(editor.edits) == 2


def test_an_id_that_was_used_again_is_undone(plain):
    model, tokenizer = plain
    editor = editmem.wrap(model, tokenizer=tokenizer)
    editor.edit(*FIRST, id="au")
    editor.edit(*NEW, id="au")
    assert editor.edits["au"].edit.target == NEW[1]
    editor.undo()
    assert editor.edits["au"].edit.target == FIRST[1]
    assert editor.explain(FIRST[0]).edit.edit.target == FIRST[1]
    assert say(editor, FIRST[0]).startswith(FIRST[1])


# Ledgers that are there already


def events(path):
    ledger = Ledger(path)
    ledger.close()
    return list(ledger)


def test_a_ledger_is_gone_on_with(plain, tmp_path):
    model, tokenizer = plain
    with editmem.wrap(model, tokenizer=tokenizer, ledger=tmp_path / "ledger") as editor:
        editor.edit([FIRST, SECOND])
        editor.edit(*NEW, id="new")
        editor.forget(editor.history[1].record.id)
        history, edits, said = list(editor.history), dict(editor.edits), say(editor, FIRST[0])
    with editmem.wrap(model, tokenizer=tokenizer, ledger=tmp_path / "ledger") as editor:
        assert list(editor.history) == history
        assert dict(editor.edits) == edits
        assert say(editor, FIRST[0]) == said
        editor.undo(2)
        assert say(editor, FIRST[0]).startswith(FIRST[1])
        assert say(editor, SECOND[0]).startswith(SECOND[1])
        history = list(editor.history)
    assert events(tmp_path / "ledger") == history
    assert [event.number for event in history] == list(range(len(history)))


def test_a_saved_memory_and_its_ledger(plain, tmp_path):
    model, tokenizer = plain
    folder, ledger = tmp_path / "memory", tmp_path / "ledger"
    with editmem.wrap(model, tokenizer=tokenizer, ledger=ledger) as editor:
        editor.edit([FIRST, SECOND])
        editor.save_pretrained(folder)
        editor.edit(*NEW)
        editor.forget(editor.history[1].record.id)
        history, edits = list(editor.history), dict(editor.edits)
    for path in (ledger, tmp_path / "new", tmp_path / "new"):
        with editmem.load(model, folder, tokenizer=tokenizer, ledger=path) as editor:
            saved = path != ledger
            assert list(editor.history) == (history[:2] if saved else history)
            assert len(editor.edits) == 2 if saved else dict(editor.edits) == edits
            assert say(editor, FIRST[0]).startswith(FIRST[1] if saved else NEW[1])
    with editmem.wrap(model, tokenizer=tokenizer, ledger=tmp_path / "other") as editor:
        editor.edit(*THIRD)
    with pytest.raises(LedgerError, match="different histories"):
        editmem.load(model, folder, tokenizer=tokenizer, ledger=tmp_path / "other")


def test_what_is_no_ledger_is_refused(plain, tmp_path):
    model, tokenizer = plain
    classes = [type(module) for module in model.modules()]
    (tmp_path / "text").write_text("no database, " * 1000)
    (tmp_path / "folder").mkdir()
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE users (name TEXT)")
    other.close()
    for number, text in enumerate(
        ("{", '{"number": 1, "kind": "forgotten", "ids": [], "time": 0}', "[]", '{"kind": 3}')
    ):
        damaged = sqlite3.connect(tmp_path / f"damaged{number}")
        damaged.execute("CREATE TABLE events (number INTEGER PRIMARY KEY, event TEXT NOT NULL)")
        damaged.execute("INSERT INTO events VALUES (0, ?)", (text,))
        damaged.commit()
        damaged.close()
    for path in tmp_path.iterdir():
        if path.name in ("text", "folder", "other") or (path.name.startswith("damaged") and len(path.name) == 8):
            with pytest.raises(LedgerError, match=str(path)):
                editmem.wrap(model, tokenizer=tokenizer, ledger=path)
    assert [type(module) for module in model.modules()] == classes


def test_two_editors_on_one_ledger_do_not_mix(tokenizer, tmp_path):
    one, other = (
        editmem.wrap(make("llama", len(tokenizer)), QUICK, tokenizer=tokenizer, ledger=tmp_path / "ledger")
        for _ in range(2)
    )
    one.edit(*FIRST)
    with pytest.raises(LedgerError, match="another editor"):
        other.edit(*SECOND)
    assert not other.edits
    assert [event.record.edit.target for event in events(tmp_path / "ledger")] == [FIRST[1]]
    one.unwrap()
    other.unwrap()

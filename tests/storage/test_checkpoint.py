"""A saved memory comes back bit for bit, or is refused by name; a killed save leaves a whole one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import editmem
from editmem.editor import changes_of
from editmem.errors import CheckpointError
from editmem.storage import checkpoint

pytestmark = pytest.mark.usefixtures("calibrated_once")

EDITS = [("The capital of Australia is", "Sydney"), ("The currency of Japan is the", "Swiss franc")]


def wrapped(spec="memoir"):
    model, tokenizer = editmem.tiny()
    return editmem.wrap(model, spec, tokenizer=tokenizer)


def logits(model, tokenizer):
    inputs = tokenizer([prompt for prompt, _ in EDITS], return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.no_grad():
        return model(**inputs).logits


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "memory"
    editor = wrapped()
    editor.edit(EDITS)
    editor.edit("The capital of Japan is", "Osaka", id="jp")
    editor.forget("jp")
    editor.save_pretrained(folder)
    return folder, logits(editor.model, editor.tokenizer)


@pytest.fixture
def copy(saved, tmp_path):
    return Path(shutil.copytree(saved[0], tmp_path / "memory"))


@pytest.mark.parametrize(
    "spec", ["memoir", editmem.MemoirSpec(storage="shared", router="tophash"), editmem.MemoirSpec(router="tophash")]
)
def test_round_trip(spec, tmp_path):
    editor = wrapped(spec)
    editor.edit(EDITS)
    editor.save_pretrained(tmp_path / "memory")
    model, tokenizer = editmem.tiny()
    again = editmem.load(model, tmp_path / "memory", tokenizer=tokenizer)
    assert torch.equal(logits(model, tokenizer), logits(editor.model, tokenizer))
    assert dict(again.edits) == dict(editor.edits)
    assert list(again.history) == list(editor.history)
    assert again.specs == editor.specs
    record = again.edit("The capital of Japan is", "Osaka")
    assert record.took
    again.undo()
    assert torch.equal(logits(model, tokenizer), logits(editor.model, tokenizer))


@pytest.mark.parametrize(("saved_in", "loaded_in"), [("float16", "float32"), ("float32", "bfloat16")])
@pytest.mark.parametrize("method", ["memoir", "grace"])
def test_a_host_in_another_dtype(method, saved_in, loaded_in, tmp_path):
    """The same weights, wider or narrower: the edits hold, in the dtype of the host that they are put on."""
    model, tokenizer = editmem.tiny()
    editor = editmem.wrap(model.to(getattr(torch, saved_in)), method, tokenizer=tokenizer)
    editor.edit(EDITS)
    editor.save_pretrained(tmp_path / "memory")
    model = editmem.tiny()[0].to(getattr(torch, loaded_in))
    editor = editmem.load(model, tmp_path / "memory", tokenizer=tokenizer)
    for prompt, target in EDITS:
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        said = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert tokenizer.decode(said).strip().startswith(target)
    assert changes_of(editor).memory.state_dict()["storage.offsets.data"].dtype == getattr(torch, loaded_in)


BREAKS = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e\r\n"
"""All that Python takes for the end of a line."""


def test_text_with_line_breaks_of_all_kinds(tmp_path):
    editor = wrapped()
    record = editor.edit(
        f"The capital{BREAKS}of Australia is", f"Syd{BREAKS}ney", id=f"au{BREAKS}", source=f"a{BREAKS}b", tags=[BREAKS]
    )
    editor.save_pretrained(tmp_path / "memory")
    model, tokenizer = editmem.tiny()
    again = editmem.load(model, tmp_path / "memory", tokenizer=tokenizer)
    assert list(again.edits.values()) == [record]


def test_an_empty_memory(tmp_path):
    wrapped().save_pretrained(tmp_path / "memory")
    model, tokenizer = editmem.tiny()
    assert not editmem.load(model, tmp_path / "memory", tokenizer=tokenizer).edits


def _rewrite(name, change):
    def damage(folder):
        path = folder / name
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")

    return damage


def _config(**values):
    return _rewrite(checkpoint.CONFIG, lambda text: json.dumps({**json.loads(text), **values}))


def _host(**values):
    def change(text):
        config = json.loads(text)
        return json.dumps({**config, "host": {**config["host"], **values}})

    return _rewrite(checkpoint.CONFIG, change)


def _flip(folder):
    path = folder / checkpoint.TENSORS
    data = bytearray(path.read_bytes())
    data[-7] ^= 4
    path.write_bytes(bytes(data))


def _truncate(folder):
    path = folder / checkpoint.TENSORS
    path.write_bytes(path.read_bytes()[:-100])


def _drop_tensor(folder):
    path = folder / checkpoint.TENSORS
    tensors = load_file(path)
    tensors.pop("0.targets.lengths.data")
    save_file(tensors, path)
    config = json.loads((folder / checkpoint.CONFIG).read_text())
    config["sha256"][checkpoint.TENSORS] = checkpoint.digest_of(path)
    (folder / checkpoint.CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip, "damaged"),
        (_truncate, "damaged"),
        (_drop_tensor, "'targets.lengths.data' is missing"),
        (_config(format=99), "newer"),
        (_config(tokenizer="0"), "another tokenizer"),
        (_host(hidden_size=7), "another host: its hidden_size is 7"),
        (_host(weights=None, embedding_sample="0"), "description of its host is damaged"),
        (_host(weights={"": {"precision": "float32", "values": {"lm_head.weight": "?"}}}), "another host"),
        (_rewrite(checkpoint.CONFIG, lambda text: text[:50]), "damaged"),
        (_rewrite(checkpoint.EDITS, lambda text: text.replace("Sydney", "Melbourne")), "damaged"),
        (lambda folder: (folder / checkpoint.TENSORS).unlink(), "memory.safetensors is missing"),
        (lambda folder: (folder / checkpoint.CONFIG).unlink(), "editmem_config.json is missing"),
    ],
)
def test_what_is_refused(copy, damage, message):
    damage(copy)
    model, tokenizer = editmem.tiny()
    bare = logits(model, tokenizer)
    classes = [type(module) for module in model.modules()]
    with pytest.raises(CheckpointError, match=message):
        editmem.load(model, copy, tokenizer=tokenizer)
    assert [type(module) for module in model.modules()] == classes
    assert torch.equal(logits(model, tokenizer), bare)


def test_saving_over_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="not a saved memory"):
        wrapped().save_pretrained(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


SAVERS = """
import os, sys
from pathlib import Path
from editmem.storage import checkpoint
state = checkpoint.load(sys.argv[1])
for _ in sys.stdin:
    if (pid := os.fork()) == 0:
        while True:
            checkpoint.save(Path(sys.argv[2]), state)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("killed", flush=True)
"""
"""Starts a process that saves again and again for each line that it reads, and says which."""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="those who save are forks")
def test_a_killed_save_leaves_a_loadable_folder(saved, tmp_path):
    target = tmp_path / "memory"
    shutil.copytree(saved[0], target)
    whole = checkpoint.load(saved[0])
    rng = random.Random(0)
    command = [sys.executable, "-c", SAVERS, saved[0], target]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as savers:
        for _ in range(4):
            savers.stdin.write("another\n")
            pid = int(savers.stdout.readline())
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(pid, signal.SIGKILL)
            assert savers.stdout.readline() == "killed\n"
            state = checkpoint.load(target)
            assert state.rows == whole.rows
            assert all(torch.equal(state.tensors[0][name], tensor) for name, tensor in whole.tensors[0].items())
    checkpoint.save(target, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["memory"]


class FakeHub:
    """The part of `huggingface_hub` at our boundary, over a local folder."""

    def __init__(self, root):
        self.root = root

    def api(self, token=None):
        self.called = [("api", {"token": token})]
        return self

    def create_repo(self, repo_id, *, private=None, exist_ok=False):
        assert exist_ok
        self.called.append(("create_repo", {"private": private}))
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)
        return f"hub://{repo_id}"

    def create_branch(self, repo_id, *, branch, exist_ok=False):
        assert exist_ok
        self.called.append(("create_branch", {"branch": branch}))

    def upload_folder(self, *, repo_id, folder_path, commit_message, revision=None, create_pr=None):
        said = {"commit_message": commit_message, "revision": revision, "create_pr": create_pr}
        self.called.append(("upload_folder", said))
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return SimpleNamespace(pr_url=f"hub://{repo_id}/discussions/1" if create_pr else None)

    def download(self, source, revision=None, allow_patterns=None):
        assert revision in (None, "main")
        if not (self.root / source).is_dir():
            raise OSError(f"404: {source}")
        return str(self.root / source)


def test_the_hub(saved, tmp_path, monkeypatch):
    hub = FakeHub(tmp_path)
    monkeypatch.setattr(checkpoint, "HfApi", hub.api)
    monkeypatch.setattr(checkpoint, "snapshot_download", hub.download)
    editor = wrapped()
    editor.edit(EDITS)
    assert editor.push_to_hub("someone/edits") == "hub://someone/edits"
    model, tokenizer = editmem.tiny()
    editmem.load(model, "someone/edits", tokenizer=tokenizer, revision="main")
    assert torch.equal(logits(model, tokenizer), logits(editor.model, tokenizer))
    with pytest.raises(CheckpointError, match="cannot be fetched"):
        editmem.load(editmem.tiny()[0], "someone/nothing", tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("options", "calls", "url"),
    [
        (
            {},
            [
                ("api", {"token": None}),
                ("create_repo", {"private": None}),
                ("upload_folder", {"commit_message": "2 edits", "revision": None, "create_pr": False}),
            ],
            "hub://someone/edits",
        ),
        (
            {"private": True, "token": "hf_x", "revision": "drafts", "commit_message": "Capitals"},
            [
                ("api", {"token": "hf_x"}),
                ("create_repo", {"private": True}),
                ("create_branch", {"branch": "drafts"}),
                ("upload_folder", {"commit_message": "Capitals", "revision": "drafts", "create_pr": False}),
            ],
            "hub://someone/edits",
        ),
        (
            {"revision": "drafts", "create_pr": True},
            [
                ("api", {"token": None}),
                ("create_repo", {"private": None}),
                ("upload_folder", {"commit_message": "2 edits", "revision": "drafts", "create_pr": True}),
            ],
            "hub://someone/edits/discussions/1",
        ),
    ],
)
def test_options_reach_the_hub(saved, options, calls, url, tmp_path, monkeypatch):
    hub = FakeHub(tmp_path)
    monkeypatch.setattr(checkpoint, "HfApi", hub.api)
    model, tokenizer = editmem.tiny()
    editor = editmem.load(model, saved[0], tokenizer=tokenizer)
    assert editor.push_to_hub("someone/edits", **options) == url
    assert hub.called == calls
    with pytest.raises(TypeError):
        editor.push_to_hub("someone/edits", colour="red")

"""What was acknowledged is there after a crash, and the tensors follow by themselves."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest

import editmem
from editmem.errors import CheckpointError, EditMemError
from editmem.serve.client import Client
from editmem.serve.store import Store, VersionConflict

EDIT = ("The capital of Australia is", "Sydney")


def opened(memory, **options):
    return Store.open(*editmem.tiny(), memory, **options)


def test_edits_are_there_again(tmp_path):
    memory = tmp_path / "new" / "memory"
    with opened(memory) as store, store.changing() as editor:
        editor.edit(*EDIT, id="au")
    with opened(memory) as store:
        assert list(store.editor.edits) == ["au"]
        assert store.editor.version == 1


def test_after_a_crash_the_ledger_has_what_the_snapshot_lacks(tmp_path):
    with opened(tmp_path / "memory") as store:
        store.editor.edit(*EDIT, id="au")
        store.save()
        store.editor.edit("The capital of Peru is", "Cusco", id="pe")
        store.editor.forget("au")
        store.memory = None  # no more snapshots
    with opened(tmp_path / "memory") as store:
        assert list(store.editor.edits) == ["pe"]
        assert [event.kind for event in store.editor.history] == ["edited", "edited", "forgotten"]
        assert store.editor.explain("The capital of Peru is").edit.id == "pe"


def test_snapshots_come_by_themselves_and_failing_ones_are_tried_again(tmp_path, monkeypatch, caplog):
    tries, save = [], editmem.Editor.save_pretrained

    def failing(self, folder):
        tries.append(folder)
        if len(tries) == 1:
            raise OSError("No space left on device")
        save(self, folder)

    monkeypatch.setattr(editmem.Editor, "save_pretrained", failing)
    with opened(tmp_path / "memory", every=0.05) as store:
        store.editor.edit(*EDIT)
        deadline = time.monotonic() + 30
        while store.saved != 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert store.saved == 1
        assert (tmp_path / "memory").is_dir()
        assert "no snapshot could be saved" in caplog.text


def test_one_process_at_a_time(tmp_path):
    with opened(tmp_path / "memory"), pytest.raises(EditMemError, match="open in another server"):
        opened(tmp_path / "memory")
    opened(tmp_path / "memory").close()


def test_what_cannot_be_opened_is_not_locked(tmp_path):
    (tmp_path / "memory").mkdir()
    with pytest.raises(CheckpointError):
        opened(tmp_path / "memory")
    (tmp_path / "memory").rmdir()
    opened(tmp_path / "memory").close()


def test_one_writer_at_a_time(store):
    with store.changing(0) as editor:
        editor.edit(*EDIT)
    with pytest.raises(VersionConflict, match="has version 1, and 0 was expected"), store.changing(0):
        raise AssertionError("not reached")


@pytest.mark.slow
def test_acknowledged_edits_survive_kill(tmp_path):
    """The server is killed while edits are made; the next one has all that were answered."""
    server, url = start(tmp_path / "memory")
    acknowledged: list[str] = []

    def edit():
        with contextlib.suppress(httpx.HTTPError), Client(url, timeout=60) as client:
            for number in itertools.count():
                acknowledged.append(client.edit(f"The capital of Land {number} is", "Rome", id=f"e{number}").id)

    editing = threading.Thread(target=edit)
    editing.start()
    time.sleep(2)
    os.kill(server.pid, signal.SIGKILL)
    editing.join()
    server.wait()
    server.stderr.close()
    assert len(acknowledged) > 2
    with opened(tmp_path / "memory") as store:
        assert set(store.editor.edits) >= set(acknowledged)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_stopped_saves_its_memory(tmp_path, sent):
    server, url = start(tmp_path / "memory", every=3600)
    with Client(url, timeout=60) as client:
        client.edit(*EDIT)
    server.send_signal(sent)
    server.stderr.read()
    server.stderr.close()
    assert server.wait(60) == 0
    assert (tmp_path / "memory").is_dir()


def start(memory, every=1):
    """A server as a process of its own, once it answers; its URL."""
    command = [sys.executable, "-m", "editmem", "serve", "--model", "tiny", "--memory", str(memory), "--port", "0"]
    server = subprocess.Popen([*command, "--snapshot-every", str(every)], stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        if "running on " in line:
            return server, line.split("running on ")[1].split()[0]
    raise AssertionError(f"the server ended with {server.wait()}")

"""A memory that outlives its process: the ledger has every change before it is answered; snapshots follow."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

import editmem
from editmem.editor import Editor
from editmem.errors import EditMemError

EVERY = 60.0
"""Seconds between two snapshots."""
_log = logging.getLogger(__name__)


class VersionConflict(EditMemError):
    """Somebody else changed the memory first. Nothing was changed.

    Args:
        version: that the memory has.
        expected: that it was thought to have.
    """

    def __init__(self, version: int, expected: int) -> None:
        super().__init__(
            f"the memory has version {version}, and {expected} was expected: somebody changed it meanwhile. Look at "
            "what changed, and send it again with the new version"
        )
        self.version = version


def ledger_of(memory: Path) -> Path:
    """Where the ledger of a memory lies: beside its folder, which is replaced as a whole when it is saved."""
    return memory.with_name(f"{memory.name}.ledger")


def _locked(memory: Path) -> FileLock:
    """The lock of a memory, which one process has at a time; the system takes it from one that is killed."""
    lock = FileLock(memory.with_name(f"{memory.name}.lock"), thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise EditMemError(f"{memory} is open in another server; stop that one, or give another folder") from error
    return lock


class Store:
    """An editor with one writer at a time, whose changes are durable.

    A change is in the ledger, on disk, when its call returns. The tensors are saved in the background; after a crash
    `open` starts from the last snapshot and writes again what the ledger has beyond it.

    Args:
        editor: with a ledger beside `memory`; see `open`.
        memory: the folder to save to; None to keep nothing.
        every: seconds between two snapshots.
        lock: that was taken on the memory; given back when the store is closed.
    """

    def __init__(
        self, editor: Editor, memory: Path | None = None, every: float = EVERY, lock: FileLock | None = None
    ) -> None:
        self.editor, self.memory, self.every, self._lock = editor, memory, every, lock
        self.saved: int | None = None
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._saver = threading.Thread(target=self._save_again, name="editmem-snapshots", daemon=True)
        if memory is not None:
            self._saver.start()

    @classmethod
    def open(
        cls, model: Any, tokenizer: Any, memory: Path | None, spec: str = "memoir", every: float = EVERY
    ) -> "Store":
        """Put on a model what is kept at `memory`, or a new memory there.

        Raises:
            EditMemError: if another process has opened it; and as `editmem.load` and `editmem.wrap` do.
        """
        if memory is None:
            return cls(editmem.wrap(model, spec, tokenizer=tokenizer))
        memory = memory.absolute()
        memory.parent.mkdir(parents=True, exist_ok=True)
        ledger, lock = ledger_of(memory), _locked(memory)
        try:
            if memory.exists():
                editor = editmem.load(model, memory, tokenizer=tokenizer, ledger=ledger)
            else:
                editor = editmem.wrap(model, spec, tokenizer=tokenizer, ledger=ledger)
        except BaseException:
            lock.release()
            raise
        return cls(editor, memory, every, lock)

    @contextmanager
    def changing(self, expected: int | None = None) -> Iterator[Editor]:
        """Around one change: no other begins meanwhile.

        Raises:
            VersionConflict: if the memory has another version than the `expected` one.
        """
        with self._writing:
            if expected is not None and expected != self.editor.version:
                raise VersionConflict(self.editor.version, expected)
            yield self.editor

    def save(self) -> None:
        """Save a snapshot, if anything has changed since the last."""
        version = self.editor.version
        if self.memory is not None and version != self.saved:
            self.editor.save_pretrained(self.memory)
            self.saved = version

    def _save_again(self) -> None:
        while not self._stop.wait(self.every):
            self._try(self.save)

    def _try(self, save: Callable[[], None]) -> None:
        try:
            save()
        except (EditMemError, OSError):  # the ledger has everything; the next time may do
            _log.exception("no snapshot could be saved to %s", self.memory)

    def close(self) -> None:
        """Save a last time, and take the memory off the model."""
        self._stop.set()
        try:
            if self._saver.is_alive():
                self._saver.join()
            with self._writing:
                self._try(self.save)
            self.editor.unwrap()
        finally:
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

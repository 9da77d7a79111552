"""Write folders whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def replace(folder: Path, write: Callable[[Path], None]) -> None:
    """Put a new folder in the place of another: a crash at any moment leaves what was there before.

    Args:
        folder: where; need not exist.
        write: fills an empty folder.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    _finish_interrupted(folder)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new-", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        write(fresh)
        for path in (*fresh.iterdir(), fresh):
            _sync(path)
        if folder.exists():
            # Two renames cannot be one: between them the old folder is at `.old`, where `found` looks too.
            os.rename(folder, _old(folder))
        os.rename(fresh, folder)
        _sync(folder.parent)
        shutil.rmtree(_old(folder), ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def found(folder: Path) -> Path:
    """Where the folder is, also after a `replace` that was killed."""
    old = _old(folder.absolute())
    return old if not folder.is_dir() and old.is_dir() else folder


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _finish_interrupted(folder: Path) -> None:
    """Clean up after a `replace` that was killed."""
    if _old(folder).exists():
        if folder.exists():
            shutil.rmtree(_old(folder))
        else:
            os.rename(_old(folder), folder)
    for left in folder.parent.glob(f".{folder.name}.new-*"):
        shutil.rmtree(left, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

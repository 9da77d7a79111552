"""The folder of a run: what is written when, so that a run that is killed at any moment can go on."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

LINES = ("edits.jsonl", "early.jsonl", "scores.jsonl")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """A run's folder, made if need be, for this process alone.

    Raises:
        ValueError: if another process holds it; a process that ends, however it does, holds nothing any more.
    """
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{path} is being written by another process; wait for it, or end it") from None
    try:
        yield
    finally:
        lock.release()


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        edits: how many are in the saved state.
        evaluated: how many of the sizes were evaluated.
        finished: whether there is nothing more to do.
        peak: largest peak memory so far, in bytes.
        lengths: bytes of each file of lines that belong to this progress.
        scores: means at the latest evaluation, for whoever watches.
    """

    edits: int = 0
    evaluated: int = 0
    finished: bool = False
    peak: int = 0
    lengths: dict[str, int] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)


class RunFolder:
    """The files of a run.

    `run.json` says what it is, `before.json` holds what metrics saw of the unedited model, `edits.jsonl` a line per
    edit, `early.jsonl` scores right after an edit, `scores.jsonl` scores at each size, `matches.json` how well
    prompts match, `state/<edits>/` the method's state. `progress.json` is written last and says which of it counts.

    Args:
        path: of the folder; made if need be.

    Raises:
        ValueError: if the folder holds another run, or files that cannot be read.
    """

    def __init__(self, path: Path, description: Mapping[str, Any]) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        if (found := self.read("run.json")) is None:
            self.write("run.json", description)
        elif found["spec"] != description["spec"]:
            raise ValueError(f"{path} holds the run of another spec; give another --out folder")
        self.progress = read_progress(path)
        self._drop_uncounted()

    @property
    def state(self) -> Path:
        """Where the state of the recorded progress lies."""
        return self.path / "state" / str(self.progress.edits)

    def read(self, name: str) -> Any:
        """A JSON file; None where there is none."""
        return read_json(self.path / name)

    def write(self, name: str, content: Any) -> None:
        """A JSON file, whole or not at all."""
        write_atomically(self.path / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def append(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add to a file of lines; they count from the next `record` on."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Everything in a file of lines."""
        return read_lines(self.path / name)

    def record(self, progress: Progress, save: Callable[[Path], None]) -> None:
        """Make everything so far count.

        Args:
            progress: how far the run is now; its lengths are filled in.
            save: writes the state to a folder; called if there are new edits.
        """
        target = self.path / "state" / str(progress.edits)
        if progress.edits != self.progress.edits:
            fresh = target.with_name("new")
            for folder in (fresh, target):
                shutil.rmtree(folder, ignore_errors=True)
            fresh.mkdir(parents=True)
            save(fresh)
            fresh.rename(target)
        progress.lengths = {name: (self.path / name).stat().st_size for name in LINES if (self.path / name).exists()}
        self.write("progress.json", asdict(progress))
        self.progress = Progress(**asdict(progress))
        self._drop_old_states()

    def _drop_old_states(self) -> None:
        for folder in (self.path / "state").glob("*"):
            if folder != self.state:
                shutil.rmtree(folder)

    def _drop_uncounted(self) -> None:
        for name in LINES:
            if (self.path / name).exists():
                os.truncate(self.path / name, self.progress.lengths.get(name, 0))


def read_json(path: Path) -> Any:
    """A JSON file of a run; None where there is none.

    Raises:
        ValueError: if it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); remove its folder to run anew") from None


def read_lines(path: Path, length: int | None = None) -> list[dict[str, Any]]:
    """A file of JSON lines, or its first `length` bytes; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes()[:length].splitlines()]


def read_progress(folder: Path) -> Progress:
    """How far the run of a folder is; at the beginning where there is none."""
    return Progress(**(read_json(folder / "progress.json") or {}))


def write_atomically(path: Path, text: str) -> None:
    """Write a text file by way of a temporary one beside it."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)

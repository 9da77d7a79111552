"""Edits that are put into prompts: what such methods share. No weight changes, nothing is learned."""

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.folder import write_atomically
from benchmarks.records import Record
from benchmarks.session import Silenced

FILE = "facts.json"


@dataclass(frozen=True)
class Fact:
    """An edit as it is kept."""

    prompt: str
    target: str
    subject: str | None


class InContext(Silenced):
    """A session that puts edits into the prompts that they are found for.

    Attributes:
        facts: the edits in force, in order.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.facts: list[Fact] = []

    @abstractmethod
    def index(self) -> None:
        """Be ready to find `facts`, of which there is at least one."""

    @abstractmethod
    def composed(self, prompts: Sequence[str]) -> list[str]:
        """Each prompt with what is found for it."""

    def write(self, records: Sequence[Record]) -> list[bool | None]:
        kept = {fact.prompt: fact for fact in self.facts}
        for record in records:
            kept.pop(record.prompt, None)
            kept[record.prompt] = Fact(record.prompt, record.target, record.subject)
        self._hold(list(kept.values()))
        return [None] * len(records)

    def _hold(self, facts: list[Fact]) -> None:
        self.facts = facts
        if facts:
            self.index()

    def read(self, prompts: Sequence[str]) -> list[str]:
        return list(prompts) if self.silent or not self.facts else self.composed(prompts)

    def _saved(self) -> str:
        return json.dumps([asdict(fact) for fact in self.facts], ensure_ascii=False)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FILE, self._saved())

    def restore(self, folder: Path) -> None:
        self._hold([Fact(**fact) for fact in json.loads((folder / FILE).read_text(encoding="utf-8"))])

    def bytes(self) -> int:
        """The texts; what finds them follows from these."""
        return len(self._saved().encode())

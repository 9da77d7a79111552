"""Every method that can be run, by name: the memories of the library, and what they are compared with."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import editmem
from benchmarks.baselines import BASELINES
from benchmarks.baselines.encoding import without_repeats
from benchmarks.records import Record
from benchmarks.session import Session

Method = Callable[[Any, Any, Mapping[str, Any], int], Session]

# Memories with settings of their own: name -> what the spec is made from.
VARIANTS: dict[str, dict[str, Any]] = {
    "memoir-shared": editmem.MemoirSpec.paper().to_dict(),
    "wise-merge": {"method": "wise", "inference": "merge", "shard_edits": 50, "renderings": False},
    "wise-paper": editmem.WiseSpec.paper().to_dict(),
}


class EditmemSession(Session):
    """A memory of the library.

    Args:
        spec: what the spec is made from, with its "method"; the options go over it.
        model, tokenizer, options, seed: as of `Session`. Memories draw nothing at random, but for what a spec seeds.

    Raises:
        editmem.EditMemError: if the options are none of the spec, or the model cannot carry the memory.
    """

    def __init__(
        self, spec: Mapping[str, Any], model: Any, tokenizer: Any, options: Mapping[str, Any], seed: int
    ) -> None:
        super().__init__(model, tokenizer, options, seed)
        self.editor = editmem.wrap(model, {**spec, **options}, tokenizer=tokenizer)

    def write(self, records: Sequence[Record]) -> list[bool | None]:
        return [record.took for part in without_repeats(records) for record in self._edit(part)]

    def _edit(self, records: Sequence[Record]) -> list[editmem.EditRecord]:
        edits = [editmem.Edit(r.prompt, r.target, id=r.id, subject=r.subject) for r in records]
        return self.editor.edit(edits, batch_size=self.batch_size, progress=False)

    def save(self, folder: Path) -> None:
        self.editor.save_pretrained(folder)

    def restore(self, folder: Path) -> None:
        self.editor.unwrap()
        self.editor = editmem.load(self.model, folder, tokenizer=self.tokenizer)

    def boundaries(self, lengths: Sequence[int]) -> AbstractContextManager[None]:
        return self.editor.prompt_lengths(lengths)

    def off(self) -> AbstractContextManager[None]:
        return self.editor.off()

    def matches(self, prompts: Sequence[str]) -> list[tuple[float, float]]:
        """For each prompt the score of the edit that fits best, and the threshold from which on that edit acts."""
        found = [self.editor.explain(prompt, top=1).candidates for prompt in prompts]
        return [(best[0].score, best[0].threshold) if best else (0.0, 1.0) for best in found]

    def bytes(self) -> int:
        with tempfile.TemporaryDirectory() as folder:
            self.editor.save_pretrained(Path(folder, "memory"))
            return Path(folder, "memory", "memory.safetensors").stat().st_size


METHODS: dict[str, Method] = {
    **{name: partial(EditmemSession, {"method": name}) for name in editmem.METHODS},
    **{name: partial(EditmemSession, spec) for name, spec in VARIANTS.items()},
    **BASELINES,
}

"""Memories of the library that take pictures."""

import random
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import editmem
from benchmarks.visual.inputs import Row
from benchmarks.visual.records import Change, Question
from benchmarks.visual.session import Calibration, VisualSession
from editmem.editor import changes_of
from editmem.methods.memeic import connecting


class VisualMemory(VisualSession):
    """A memory of the library.

    Args:
        spec: what the spec is made from, with its "method", or several; the options go over the last.
        model, processor, options, seed: as of `VisualSession`.

    Raises:
        editmem.EditMemError: if the options are none of the spec, or the model cannot carry the memory.
    """

    def __init__(
        self,
        spec: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        model: Any,
        processor: Any,
        options: Mapping[str, Any],
        seed: int,
    ) -> None:
        super().__init__(model, processor, options, seed)
        *others, last = [spec] if isinstance(spec, Mapping) else spec
        self.editor = editmem.wrap(model, [*others, {**last, **options}], tokenizer=processor)

    def write(self, change: Change) -> bool | None:
        (record,) = self.editor.edit([edit_of(change)], progress=False)
        return record.took

    def save(self, folder: Path) -> None:
        self.editor.save_pretrained(folder)

    def restore(self, folder: Path) -> None:
        self.editor.unwrap()
        self.editor = editmem.load(self.model, folder, tokenizer=self.processor)

    def boundaries(self, lengths: Sequence[int]) -> AbstractContextManager[None]:
        return self.editor.prompt_lengths(lengths)


class Decomposed(VisualMemory):
    """A memory that is told how the data set itself puts questions about pictures in words."""

    def _say(self, questions: Sequence[Question], tokens: int) -> list[str]:
        with self._decomposed(questions):
            return super()._say(questions, tokens)

    def _read(self, questions: Sequence[Question], answers: Sequence[str]) -> list[Row]:
        with self._decomposed(questions):
            return super()._read(questions, answers)

    def _decomposed(self, questions: Sequence[Question]) -> AbstractContextManager[None]:
        return self.editor.reading(questions=[q.split.text if q.split is not None else None for q in questions])


class Connected(VisualMemory):
    """A memory whose connector is trained, before the first edit, on the calibration part (MemEIC, stage 2).

    Its edits are written for that, and taken back. Options beside those of the spec: `connector_right`,
    `connector_passes` and `connector_rate`, as of `editmem.methods.memeic.connecting.train`.
    """

    TRAINING: ClassVar[dict[str, float]] = {"right": 0.84, "passes": 3, "rate": 2e-5}

    def __init__(
        self, spec: Mapping[str, Any], model: Any, processor: Any, options: Mapping[str, Any], seed: int
    ) -> None:
        named = {f"connector_{name}": name for name in self.TRAINING}
        self.training = self.TRAINING | {named[key]: value for key, value in options.items() if key in named}
        kept = {key: value for key, value in options.items() if key not in named}
        super().__init__(spec, model, processor, kept, seed)

    def prepare(self, calibration: Calibration) -> None:
        records = [record for record in calibration() if record.textual is not None and record.compositions]
        changes = [(edit_of(r.visual), edit_of(r.textual)) for r in records if r.textual is not None]
        self.editor.edit([edit for pair in changes for edit in pair], progress=False)
        questions = [
            connecting.Composition(edit_of(Change(asked.question, asked.answers)), visual.id, textual.id)
            for record, (visual, textual) in zip(records, changes, strict=True)
            for asked in record.compositions
        ]
        connecting.train(self.editor, questions, seed=self.seed, **self.training)
        self.editor.forget(*self.editor.edits)


class Astray(VisualMemory):
    """A memory whose lookup is wrong half of the time: another edit of the same kind is found, drawn at random.

    The draw is by what is asked, so that a question is looked up alike every time.
    """

    WRONG = 0.5

    def __init__(self, *host: Any) -> None:
        super().__init__(*host)
        memory: Any = changes_of(self.editor).memory.external  # the one place where the harness looks inside
        find, hopped = memory.find, memory.hopped
        memory.find = lambda prompts: self._astray(memory, find(prompts), prompts, ("visual", "textual"))
        memory.hopped = lambda found, rows, prompts: self._hopped(memory, found, hopped(found, rows, prompts), rows)

    def _astray(self, memory: Any, found: Any, prompts: Any, names: Sequence[str]) -> Any:
        columns = {name: getattr(found, name).clone() for name in names}
        for row, (tokens, steps) in enumerate(zip(prompts.call.tokens, prompts.call.step, strict=True)):
            asked = tokens[(steps <= 0) & prompts.call.real[row]].tolist()
            for name, column in columns.items():
                column[row] = self._other(memory, name, int(column[row]), str(asked))
        return replace(found, **columns)

    def _hopped(self, memory: Any, before: Any, found: Any, rows: Any) -> Any:
        textual = found.textual.clone()
        for row in rows.tolist():
            textual[row] = self._other(memory, "textual", int(textual[row]), f"{int(before.visual[row])} {row}")
        return replace(found, textual=textual)

    def _other(self, memory: Any, name: str, row: int, asked: str) -> int:
        rng = random.Random(f"{self.seed} {name} {asked}")
        if row < 0 or rng.random() >= self.WRONG:
            return row
        return int(rng.choice((memory.kinds.used == int(name == "visual")).nonzero().squeeze(1).tolist()))


def edit_of(change: Change) -> editmem.Edit:
    """A change as the library takes it."""
    shown = change.question.picture
    return editmem.Edit(change.question.prompt, change.target, image=None if shown is None else shown.pixels())

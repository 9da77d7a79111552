"""SERAC, simplified: edits are kept outside of the host, and answer what a learned scope classifier gives them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.baselines.options import settings
from benchmarks.baselines.weights import load_tensors, save_tensors
from benchmarks.visual.baselines.scope import Scope, features, fit
from benchmarks.visual.inputs import Row
from benchmarks.visual.records import Change, Question, VisualRecord
from benchmarks.visual.session import Calibration, VisualSession

ABOVE = 10.0  # by how much the counterfactual model's token beats every token of the host


@dataclass(frozen=True)
class SeracSettings:
    """Settings of SERAC.

    Attributes:
        records: of the calibration part that are learned from, at most.
        depth: of the states that are compared, 0 for what enters the first block, 1 for what leaves the last.
        steps, rate: of the scope classifier's training, Adam.
        inside: probability from which on a question is within the scope of an edit.
    """

    records: int = 500
    depth: float = 0.25
    steps: int = 500
    rate: float = 0.03
    inside: float = 0.5


class Serac(VisualSession):
    """Mitchell et al., arXiv 2206.06520, with two simplifications.

    The scope classifier has no encoder of its own (the paper's, and MemEIC's baseline, have a DistilBERT): it compares
    mean states of the bare host, text with text and, unlike theirs, picture with picture, and learns weights of their
    dimensions. It learns once, on rephrasings, other views and locality questions of the data set's calibration part,
    and not again with an edit.

    The counterfactual model (a small T5 or BlenderBot; in MemEIC's baseline, a Vicuna of 7B) is none that is trained:
    it says the answer of the edit whose scope is likeliest, whatever is asked. That is the best that any could do on
    questions with the edit's own answer. Of a composition it says the answer of one edit, most often the visual one,
    where the paper's model might still have known a fact about it.

    Questions with a picture are compared with visual edits, others with textual ones.
    """

    name = "serac"

    def __init__(self, model: Any, processor: Any, options: Mapping[str, Any], seed: int) -> None:
        super().__init__(model, processor, options, seed)
        self.settings = settings(self.name, SeracSettings(), options)
        self.edits: list[tuple[str, list[int]]] = []  # the answers, and their tokens
        self.keys = torch.zeros(0, 2, model.config.get_text_config().hidden_size, device=model.device)
        self.pictured = torch.zeros(0, dtype=torch.bool, device=model.device)
        self._found: dict[Question, int | None] = {}

    # Training

    def prepare(self, calibration: Calibration) -> None:
        records = list(calibration())[: self.settings.records]
        if not records:
            raise ValueError("serac learns from the calibration part of the data set, which is empty")
        groups = []
        for asked, changes, others in (_visual_pairs(records), _textual_pairs(records)):
            if changes:
                questions = [question for question, _ in asked] + others
                owners = torch.tensor([*(owner for _, owner in asked), *[len(changes)] * len(others)])
                edited = self._features([change.question for change in changes])
                groups.append((self._features(questions), edited, owners.to(edited.device)))
        known = torch.cat([part for asked, edited, _ in groups for part in (asked, edited)])
        self.scope = Scope(known, known[:, 1].any(-1))
        fit(self.scope, groups, self.settings.steps, self.settings.rate)

    @torch.no_grad()
    def _features(self, questions: Sequence[Question]) -> Tensor:
        return features(self.model, self.reader, questions, self.settings.depth)

    # Editing

    def write(self, change: Change) -> bool | None:
        ids = self.reader.batch([change.question], [change.target]).wanted[0]
        self.edits.append((change.target, ids.tolist()))
        self.keys = torch.cat([self.keys, self._features([change.question])])
        shown = torch.tensor([change.question.picture is not None], device=self.keys.device)
        self.pictured = torch.cat([self.pictured, shown])
        self._found.clear()
        return self.took(change)

    def save(self, folder: Path) -> None:
        save_tensors({"keys": self.keys, "pictured": self.pictured}, folder)
        (folder / "edits.json").write_text(json.dumps(self.edits, ensure_ascii=False), encoding="utf-8")

    def restore(self, folder: Path) -> None:
        tensors = load_tensors(folder, self.reader.device)
        self.keys, self.pictured = tensors["keys"], tensors["pictured"]
        self.edits = [(text, ids) for text, ids in json.loads((folder / "edits.json").read_text(encoding="utf-8"))]

    # Answering

    @torch.no_grad()
    def matches(self, questions: Sequence[Question]) -> list[int | None]:
        """For each question the edit whose scope it is in, by number; None for none."""
        new = [question for question in dict.fromkeys(questions) if question not in self._found]
        for question, asked in zip(new, self._features(new), strict=True):
            places = (self.pictured == (question.picture is not None)).nonzero()[:, 0]
            self._found[question] = None
            if len(places):
                likely = self.scope(asked[None], self.keys[places])[0].sigmoid()
                if likely.max() >= self.settings.inside:
                    self._found[question] = int(places[likely.argmax()])
        return [self._found[question] for question in questions]

    def _say(self, questions: Sequence[Question], tokens: int) -> list[str]:
        found = self.matches(questions)
        bare = super()._say(questions, tokens)
        return [said if edit is None else self.edits[edit][0] for said, edit in zip(bare, found, strict=True)]

    def _read(self, questions: Sequence[Question], answers: Sequence[str]) -> list[Row]:
        found = self.matches(questions)
        rows = super()._read(questions, answers)
        return [row if edit is None else self._replaced(row, edit) for row, edit in zip(rows, found, strict=True)]

    def _replaced(self, row: Row, edit: int) -> Row:
        """A row whose answer the counterfactual model tells."""
        logits, start = row.logits.clone(), len(row.logits) - 1 - len(row.wanted)
        ids = self.edits[edit][1]
        for place in range(len(row.wanted) + 1):
            token = ids[place] if place < len(ids) else self.reader.tokenizer.eos_token_id
            logits[start + place, token] = logits[start + place].max() + ABOVE
        return replace(row, logits=logits)


Pairs = tuple[list[tuple[Question, int]], list[Change], list[Question]]


def _visual_pairs(records: Sequence[VisualRecord]) -> Pairs:
    """(question, number of the edit whose scope it is in), the edits, and questions in the scope of none."""
    asked = [
        (question, number)
        for number, record in enumerate(records)
        for question in (record.visual.question, *record.visual_rephrasings, *record.other_views)
    ]
    others = [answered.question for record in records for answered in record.picture_locality]
    return asked, [record.visual for record in records], others


def _textual_pairs(records: Sequence[VisualRecord]) -> Pairs:
    """As `_visual_pairs`."""
    there = [(record, record.textual) for record in records if record.textual is not None]
    asked = [
        (question, number)
        for number, (record, change) in enumerate(there)
        for question in (change.question, *record.textual_rephrasings)
    ]
    others = [a.question for record, _ in there for a in (*record.text_locality, *record.textual_locality)]
    return asked, [change for _, change in there], others

"""One visual run: the bare host observed, the protocol played, the last scores taken."""

import json
import statistics
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.folder import RunFolder, held, read_lines, write_atomically
from benchmarks.metrics.base import Score
from benchmarks.visual import datasets, models
from benchmarks.visual.methods import METHODS
from benchmarks.visual.observation import Observed, observe
from benchmarks.visual.protocol import Played, final, play, schedule
from benchmarks.visual.records import VisualRecord
from benchmarks.visual.scoring import METRICS, compare
from benchmarks.visual.spec import VisualSpec

SAVE_EVERY = 60.0  # seconds of work that a kill may cost, beside the step in hand
BEFORE = "before.jsonl"


def execute(spec: VisualSpec, out: Path, command: str = "") -> Path:
    """Make a run, or what is left of it; nothing if it is finished.

    Args:
        spec: what to run.
        out: the folder of results; the run gets a folder in it.
        command: what the user typed, for run.json.

    Returns:
        The run's folder.

    Raises:
        ValueError: if a name in the spec is unknown, records are too few, or another process is making the run.
    """
    check_names(spec)
    path = out / spec.slug
    with held(path):
        folder = RunFolder(path, _description(spec, command))
        if not folder.progress.finished:
            _Run(spec, folder).go()
    return path


def check_names(spec: VisualSpec) -> None:
    """Refuse a spec whose method or data set there is not.

    Raises:
        ValueError: naming what is unknown and what there is.
    """
    given: list[tuple[str, str, Collection[str]]] = [
        ("method", spec.method, METHODS),
        ("data set", spec.dataset, datasets.DATASETS),
    ]
    for kind, name, known in given:
        if name not in known:
            raise ValueError(f"unknown visual {kind} {name!r}; there are {', '.join(known)}")


def _description(spec: VisualSpec, command: str) -> dict[str, Any]:
    metrics = {name: {"group": metric.group, "better": metric.better} for name, metric in METRICS.items()}
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"spec": spec.to_dict(), "metrics": metrics, "command": command, "started": started} | machine.description()


class _Run:
    def __init__(self, spec: VisualSpec, folder: RunFolder) -> None:
        self.spec, self.folder, self.progress = spec, folder, replace(folder.progress)
        self.records = self._load(spec.part)
        if len(self.records) < spec.edits:
            raise ValueError(f"{spec.edits} edits are wanted, and the data set has {len(self.records)} records")
        self.records = self.records[: spec.edits]
        model, processor = models.load_host(spec.model)
        self.session = METHODS[spec.method](model, processor, spec.options, spec.seed)
        self.saved = time.monotonic()

    def _load(self, part: str) -> list[VisualRecord]:
        return datasets.load(self.spec.dataset, self.spec.data, part, self.spec.pictures)

    @property
    def _scored(self) -> list[VisualRecord]:
        return self.records[: self.spec.scored]

    def go(self) -> None:
        self.session.prepare(lambda: self._load("calibration"))
        before = self._before()
        if self.progress.edits:
            self.session.restore(self.folder.state)
        steps = schedule(len(self.records), self.spec.gaps, self.spec.scored)
        for played in play(self.session, self.records, steps[self.progress.edits :], before):
            self._keep(played)
        if self.spec.final:
            for scores in final(self.session, self._scored, before):
                self._append("final", scores)
        self.progress.evaluated, self.progress.finished = 1, True
        self.progress.scores = means(self.folder.lines("scores.jsonl"))
        self._record()

    def _before(self) -> dict[str, Observed]:
        """What the bare host says, from the folder where it stands there."""
        path = self.folder.path / BEFORE
        if not path.exists():
            found = [{"record": record.id, **observe(self.session, record).plain()} for record in self._scored]
            write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in found))
        lines = read_lines(path)
        before = {
            record.id: Observed.from_plain(record, line) for record, line in zip(self._scored, lines, strict=True)
        }
        if not self.folder.lines("scores.jsonl"):
            for record in self._scored:
                self._append("before", compare(record, before[record.id], before[record.id]))
        return before

    def _keep(self, played: Played) -> None:
        number = played.step.number
        self.progress.edits = number + 1
        self.folder.append("edits.jsonl", [{"edit": number, **asdict(written)} for written in played.written])
        for gap, score in played.scores:
            self._append(gap, [score])
        if self.progress.edits == len(self.records) or time.monotonic() - self.saved > SAVE_EVERY:
            self._record()

    def _append(self, gap: int | str, scores: Iterable[Score]) -> None:
        lines = [{"edits": self.progress.edits, "gap": gap, **asdict(score)} for score in scores]
        self.folder.append("scores.jsonl", lines)

    def _record(self) -> None:
        self.progress.peak = max(self.progress.peak, machine.peak_memory())
        self.folder.record(self.progress, self.session.save)
        self.saved = time.monotonic()


def means(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each metric over all its scores of edited models, whatever the gap."""
    values: dict[str, list[float]] = {}
    for line in lines:
        if line["gap"] != "before":
            values.setdefault(line["metric"], []).append(line["value"])
    return {name: statistics.fmean(found) for name, found in values.items()}

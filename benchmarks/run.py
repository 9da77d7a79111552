"""One run: records drawn, edits made in chunks, the model evaluated at each size."""

import random
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.folder import RunFolder, held, read_json
from benchmarks.metrics.base import Metric, Score
from benchmarks.records import Record
from benchmarks.session import Session
from benchmarks.spec import RunSpec

EARLY = "reliability"  # the metric that is also taken right after each chunk, for forgetting
SAVE_EVERY = 20.0  # seconds of work that a kill may cost, beside the chunk or evaluation in hand
PROMPTS = 200  # how many prompts of each sort go into matches.json

# Figures that the run itself takes: name -> (group, better).
OWN_METRICS = {
    "forgetting": ("forgetting", "lower"),
    "seconds per edit": ("cost", "lower"),
    "edits per second": ("cost", "higher"),
    "peak memory": ("cost", "lower"),
    "bytes per edit": ("cost", "lower"),
}


@dataclass(frozen=True)
class Registry:
    """What the names in a spec stand for.

    Attributes:
        load_host: model name -> (model, tokenizer), fresh.
        load_records: (data set, where it lies or None, part) -> records.
        datasets: the names of data sets.
        methods: name -> callable(model, tokenizer, options, seed) that makes a session.
        metrics: name -> metric.
        in_force: records -> those whose prompt no later one edits again.
        forgetting: (scores right after the edits, scores now) -> what was lost.
    """

    load_host: Callable[[str], tuple[Any, Any]]
    load_records: Callable[[str, str | None, str], Sequence[Record]]
    datasets: Collection[str]
    methods: Mapping[str, Callable[[Any, Any, Mapping[str, Any], int], Session]]
    metrics: Mapping[str, Metric]
    in_force: Callable[[Sequence[Record]], list[Record]]
    forgetting: Callable[[Sequence[Score], Sequence[Score]], list[Score]]

    @property
    def default_metrics(self) -> tuple[str, ...]:
        """Every metric but those that must be asked for."""
        return tuple(name for name, metric in self.metrics.items() if metric.default)


def registry() -> Registry:
    """Everything that the harness has."""
    from benchmarks import datasets, methods, metrics, models

    return Registry(
        models.load_host,
        datasets.load,
        datasets.DATASETS,
        methods.METHODS,
        metrics.METRICS,
        metrics.in_force,
        metrics.forgetting,
    )


def draw(records: Sequence[Record], count: int, seed: int) -> list[Record]:
    """The first `count` of the records as one seed shuffles them: fewer are a prefix of more.

    Raises:
        ValueError: if there are not so many.
    """
    if count > len(records):
        raise ValueError(f"{count} edits are wanted, and the data set has {len(records)}; give fewer in --edits")
    order = list(records)
    random.Random(seed).shuffle(order)
    return order[:count]


def execute(spec: RunSpec, out: Path, command: str = "", parts: Registry | None = None) -> Path:
    """Make a run, or what is left of it; nothing if it is finished.

    Args:
        spec: what to run.
        out: the folder of results; the run gets a folder in it.
        command: what the user typed, for run.json.
        parts: what the names in the spec stand for; by default everything that the harness has.

    Returns:
        The run's folder.

    Raises:
        ValueError: if a name in the spec is unknown, records are too few, or another process is making the run.
    """
    parts = parts or registry()
    check_names(spec, parts)
    path = out / spec.slug
    with held(path):
        folder = RunFolder(path, _description(spec, command, parts))
        if not folder.progress.finished:
            _Run(spec, folder, parts).go()
    return path


def check_names(spec: RunSpec, parts: Registry) -> None:
    """Refuse a spec whose method, data set or metrics there are not.

    Raises:
        ValueError: naming what is unknown and what there is.
    """
    given = {
        "method": ([spec.method], parts.methods),
        "data set": ([spec.dataset], parts.datasets),
        "metric": (spec.metrics, parts.metrics),
    }
    for kind, (names, known) in given.items():
        for name in names:
            if name not in known:
                raise ValueError(f"unknown {kind} {name!r}; there are {', '.join(known)}")


def _description(spec: RunSpec, command: str, parts: Registry) -> dict[str, Any]:
    groups = {name: (parts.metrics[name].group, parts.metrics[name].better) for name in spec.metrics}
    metrics = {name: {"group": group, "better": better} for name, (group, better) in (groups | OWN_METRICS).items()}
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"spec": spec.to_dict(), "metrics": metrics, "command": command, "started": started} | machine.description()


class _Run:
    """A run that is going on.

    Edits are given in chunks of the session's batch size, cut at the sizes, so that the chunks are the same wherever
    the run was killed; state is saved at a size and else after `SAVE_EVERY` seconds.
    """

    def __init__(self, spec: RunSpec, folder: RunFolder, parts: Registry) -> None:
        self.spec, self.folder, self.parts = spec, folder, parts
        self.metrics = {name: parts.metrics[name] for name in spec.metrics}
        records = parts.load_records(spec.dataset, spec.data, spec.part)[: spec.within]
        self.records = draw(records, spec.sizes[-1], spec.seed)
        self.session = parts.methods[spec.method](*parts.load_host(spec.model), spec.options, spec.seed)
        self.progress = replace(folder.progress)
        self.before = self._before()

    def _before(self) -> Mapping[str, Mapping[str, Any]]:
        """What metrics saw of the unedited model: size -> metric -> plain data."""
        if (before := self.folder.read("before.json")) is None:
            seen = seen_by_another(self.spec, self.folder.path) or {str(s): self._look(s) for s in self.spec.sizes}
            self.folder.write("before.json", seen)
            before = self.folder.read("before.json")
        return before

    def _look(self, size: int) -> dict[str, Any]:
        return {name: m.before(self.session, self._asked_about(m, size)) for name, m in self.metrics.items()}

    def _asked_about(self, metric: Metric, size: int) -> list[Record]:
        records = self._in_force(size)
        return records[: metric.first] if metric.first else evenly(records, self.spec.scored or size)

    def _in_force(self, size: int) -> list[Record]:
        return self.parts.in_force(self.records[:size])

    def go(self) -> None:
        self.session.prepare()
        if self.progress.edits:
            self.session.restore(self.folder.state)
        for size in self.spec.sizes[self.progress.evaluated :]:
            self._edit_up_to(size)
            self._evaluate(size)
        self._keep_matches()
        self.progress.finished = True
        self._record()

    def _edit_up_to(self, size: int) -> None:
        saved = time.monotonic()
        while self.progress.edits < size:
            self._edit_chunk(min(size, self.progress.edits + self.session.batch_size))
            if self.progress.edits == size or time.monotonic() - saved > SAVE_EVERY:
                self._record()
                saved = time.monotonic()

    def _edit_chunk(self, end: int) -> None:
        start, chunk = self.progress.edits, self.records[self.progress.edits : end]
        written = self.session.edit(chunk)
        self.folder.append("edits.jsonl", [{"edit": i, **asdict(w)} for i, w in enumerate(written, start)])
        if EARLY in self.metrics:
            scores = self.metrics[EARLY].after(self.session, self.parts.in_force(chunk), None)
            self.folder.append("early.jsonl", [{"edits": end, **asdict(score)} for score in scores])
        self.progress.edits = end

    def _record(self) -> None:
        self.progress.peak = max(self.progress.peak, machine.peak_memory())
        self.folder.record(self.progress, self.session.save)

    def _evaluate(self, size: int) -> None:
        before = self.before[str(size)]
        by_metric = {
            name: m.after(self.session, self._asked_about(m, size), before[name]) for name, m in self.metrics.items()
        }
        scores = [score for found in by_metric.values() for score in found]
        if EARLY in self.metrics:
            asked = self._asked_about(self.metrics[EARLY], size)
            scores += self.parts.forgetting(self._early(asked), by_metric[EARLY])
        scores += self._costs(size)
        self.folder.append("scores.jsonl", [{"edits": size, **asdict(score)} for score in scores])
        self.progress.evaluated += 1
        self.progress.scores = means(scores)
        self._record()

    def _early(self, records: Sequence[Record]) -> list[Score]:
        """Scores right after the edits that are in force."""
        wanted = {record.id for record in records}
        lines = [line for line in self.folder.lines("early.jsonl") if line["record"] in wanted]
        return [Score(line["metric"], line["kind"], line["record"], line["value"]) for line in lines]

    def _costs(self, size: int) -> list[Score]:
        seconds = sum(line["seconds"] for line in self.folder.lines("edits.jsonl")[:size])
        costs = {"seconds per edit": seconds / size, "peak memory": max(self.progress.peak, machine.peak_memory())}
        if seconds:
            costs["edits per second"] = size / seconds
        with suppress(NotImplementedError):
            costs["bytes per edit"] = self.session.bytes() / size
        return [Score(name, "", "", float(value)) for name, value in costs.items()]

    def _keep_matches(self) -> None:
        """How well prompts match the edits, of a method that can say."""
        matches = getattr(self.session, "matches", None)
        if matches is None:
            return
        records = self._in_force(self.spec.sizes[-1])
        prompts = {
            "edits": [record.prompt for record in records][:PROMPTS],
            "rephrasings": [prompt for record in records for prompt in record.rephrasings][:PROMPTS],
            "unrelated": [probe.prompt for record in records for probe in record.locality][:PROMPTS],
        }
        found = {name: matches(asked) for name, asked in prompts.items()}
        content: dict[str, Any] = {name: [score for score, _ in pairs] for name, pairs in found.items()}
        content["threshold"] = statistics.median(threshold for pairs in found.values() for _, threshold in pairs)
        self.folder.write("matches.json", content)


def evenly(records: Sequence[Record], count: int) -> list[Record]:
    """So many records, evenly spread over their sequence; all where there are no more."""
    return [records[i * len(records) // count] for i in range(count)] if count < len(records) else list(records)


def seen_by_another(spec: RunSpec, folder: Path) -> Any:
    """What a run of another method in the same folder of results saw of the same unedited model; None for none."""
    for other in sorted(folder.parent.glob("*/before.json")):
        about = read_json(other.with_name("run.json"))
        now = machine.description()
        if about and all(about[name] == now[name] for name in ("versions", "commit")):
            own = spec.to_dict() | {name: about["spec"].get(name) for name in ("method", "options")}
            if own == about["spec"]:
                return read_json(other)
    return None


def means(scores: Sequence[Score]) -> dict[str, float]:
    """The mean of each metric over all its scores, whatever their kind."""
    values: dict[str, list[float]] = {}
    for score in scores:
        values.setdefault(score.metric, []).append(score.value)
    return {name: statistics.fmean(found) for name, found in values.items()}

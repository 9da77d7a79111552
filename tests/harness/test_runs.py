"""Runs: what is drawn, what is written, and that a run that is killed ends like one that was not."""

import io
import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import run, scale
from benchmarks.__main__ import STUDIES, app
from benchmarks.folder import held, read_json, read_lines, read_progress
from benchmarks.methods import METHODS
from benchmarks.metrics.base import Metric, Score
from benchmarks.records import Probe, Record
from benchmarks.run import Registry, draw, execute
from benchmarks.session import Session
from benchmarks.spec import RunSpec, parse_data, parse_options, parse_sizes
from benchmarks.sweep import Outcome, in_processes, on_ray, specs
from benchmarks.watch import until_done
from editmem.tiny import world

pytestmark = pytest.mark.slow

SPEC = RunSpec("host", "leaky", "letters", (5, 20, 50), seed=3, metrics=("reliability", "locality"))


class Killed(BaseException):
    """Stands for a signal: nothing in the harness catches it."""


class Leaky(Session):
    """Remembers answers in a dictionary; each write drops one of the others, which ones depends on its state."""

    name, batch_size = "leaky", 4

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.memory: dict[str, str] = {}
        self.written = 0

    def write(self, records: Sequence[Record]) -> list[bool | None]:
        for record in records:
            self.written = (self.written * 31 + self.seed + 7) % 1009
            if self.written % 3 == 0 and self.memory:
                del self.memory[sorted(self.memory)[self.written % len(self.memory)]]
            self.memory[record.prompt] = record.target
        return [True] * len(records)

    def save(self, folder: Path) -> None:
        (folder / "memory.json").write_text(json.dumps([self.written, self.memory]))

    def restore(self, folder: Path) -> None:
        self.written, self.memory = json.loads((folder / "memory.json").read_text())

    def bytes(self) -> int:
        return len(json.dumps(self.memory))

    def generate(
        self, prompts: Sequence[str], tokens: int = 12, as_users_ask: bool = False, batch: int = 64
    ) -> list[str]:
        return [self.memory.get(prompt, f"a bare answer after {len(self.memory)}") for prompt in prompts]

    def matches(self, prompts: Sequence[str]) -> list[tuple[float, float]]:
        return [(float(prompt in self.memory), 0.5) for prompt in prompts]


class Silent(Leaky):
    """Must not be asked before it was edited."""

    def generate(self, prompts: Sequence[str], *how: Any) -> list[str]:
        if not self.memory:
            raise ValueError("it was asked")
        return super().generate(prompts, *how)


class Reliability(Metric):
    """Share of edits that are answered."""

    name, group, better, default = "reliability", "greedy", "higher", True

    def after(self, session: Session, records: Sequence[Record], before: Any) -> list[Score]:
        said = session.generate([record.prompt for record in records])
        return [Score(self.name, "", r.id, float(s == r.target)) for r, s in zip(records, said, strict=True)]


class Locality(Metric):
    """Share of probes that are answered as before."""

    name, group, better, default = "locality", "greedy", "higher", True

    def before(self, session: Session, records: Sequence[Record]) -> Any:
        return {record.id: session.generate([record.locality[0].prompt])[0] for record in records}

    def after(self, session: Session, records: Sequence[Record], before: Any) -> list[Score]:
        said = session.generate([record.locality[0].prompt for record in records])
        same = [float(s == before[r.id]) for r, s in zip(records, said, strict=True)]
        return [Score(self.name, "near", r.id, value) for r, value in zip(records, same, strict=True)]


def in_force(records: Sequence[Record]) -> list[Record]:
    return list({record.prompt: record for record in records}.values())


def forgetting(early: Sequence[Score], late: Sequence[Score]) -> list[Score]:
    now = {score.record: score.value for score in late}
    return [Score("forgetting", "", score.record, score.value - now[score.record]) for score in early]


def letters(name: str, data: str | None, part: str) -> list[Record]:
    """60 records; some prompts come twice, with other targets."""
    return [
        Record(
            f"r{i}", f"question {i % 55}", f"answer {i}", (f"answer {i}",), locality=(Probe(f"bystander {i}", "near"),)
        )
        for i in range(60)
    ]


def parts(session: Callable[..., Session] = Leaky) -> Registry:
    metrics = {"reliability": Reliability(), "locality": Locality()}
    return Registry(lambda name: (None, None), letters, ["letters"], {"leaky": session}, metrics, in_force, forgetting)


def numbers(folder: Path) -> dict[str, Any]:
    """Everything that a run found, but for times and memory."""
    own = {"seconds per edit", "edits per second", "peak memory"}
    return {
        "scores": [line for line in read_lines(folder / "scores.jsonl") if line["metric"] not in own],
        "early": read_lines(folder / "early.jsonl"),
        "edits": [{**line, "seconds": None} for line in read_lines(folder / "edits.jsonl")],
        "matches": read_json(folder / "matches.json"),
        "before": read_json(folder / "before.json"),
        "state": (folder / "state" / str(read_progress(folder).edits) / "memory.json").read_text(),
    }


class Clumsy(Leaky):
    """Is killed at the calls that `moments` names, some of them with half of the work done."""

    moments: Mapping[int, bool]  # number of the call -> whether half of it is done
    calls: list[str]

    def _tick(self, what: str, half: Callable[[], Any]) -> None:
        self.calls.append(what)
        if len(self.calls) in self.moments:
            if self.moments[len(self.calls)]:
                half()
            raise Killed(what)

    def write(self, records: Sequence[Record]) -> list[bool | None]:
        self._tick("write", lambda: super(Clumsy, self).write(records[: len(records) // 2]))
        return super().write(records)

    def save(self, folder: Path) -> None:
        self._tick("save", lambda: (folder / "memory.json").write_text('[12, {"half'))
        super().save(folder)

    def generate(self, prompts: Sequence[str], *how: Any) -> list[str]:
        self._tick("generate", lambda: None)
        return super().generate(prompts, *how)


def killed_at(moments: Mapping[int, bool]) -> Callable[..., Session]:
    calls: list[str] = []

    def make(*args: Any) -> Session:
        session = Clumsy(*args)
        session.moments, session.calls = moments, calls
        return session

    return make


@pytest.mark.parametrize("save_every", [0.0, 3600.0], ids=["saved at each chunk", "saved at sizes"])
@pytest.mark.parametrize("trial", range(4))
def test_killed_five_times_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_every: float, trial: int
) -> None:
    monkeypatch.setattr(run, "SAVE_EVERY", save_every)
    whole = execute(SPEC, tmp_path / "whole", parts=parts())
    rng = random.Random(trial)
    early = rng.randrange(1, 70)  # `before` asks 73 times
    later = rng.sample(range(early + 74, early + 106), 4)
    moments = {call: rng.random() < 0.7 for call in [early, *later]}
    make = killed_at(moments)
    kills = 0
    for _ in range(len(moments) + 1):
        try:
            folder = execute(SPEC, tmp_path / "killed", parts=parts(make))
        except Killed:
            kills += 1
    assert kills == len(moments)
    assert numbers(folder) == numbers(whole)


def test_lines_that_do_not_count_are_dropped(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        execute(SPEC, tmp_path, parts=parts(killed_at({85: False})))
    folder = tmp_path / SPEC.slug
    with (folder / "edits.jsonl").open("a") as file:
        file.write('{"edit": 99, "torn')
    execute(SPEC, tmp_path, parts=parts())
    assert [line["edit"] for line in read_lines(folder / "edits.jsonl")] == list(range(50))


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    execute(SPEC, tmp_path, parts=parts())
    execute(SPEC, tmp_path, parts=parts(killed_at({1: False})))


def test_what_a_run_writes(tmp_path: Path) -> None:
    folder = execute(SPEC, tmp_path, "the command", parts())
    told = read_json(folder / "run.json")
    assert RunSpec.from_dict(told["spec"]) == SPEC
    assert told["command"] == "the command"
    assert told["metrics"]["locality"] == {"group": "greedy", "better": "higher"}
    assert set(told["versions"]) == {"python", "torch", "transformers", "editmem"}
    scores = read_lines(folder / "scores.jsonl")
    assert {line["edits"] for line in scores} == {5, 20, 50}
    seconds = [line["seconds"] for line in read_lines(folder / "edits.jsonl")]
    cost = [line["value"] for line in scores if line["metric"] == "seconds per edit"]
    assert cost == pytest.approx([sum(seconds[:n]) / n for n in SPEC.sizes])
    matches = read_json(folder / "matches.json")
    assert matches["threshold"] == 0.5
    assert set(matches["unrelated"]) == {0.0}
    assert [path.name for path in (folder / "state").iterdir()] == ["50"]


def test_forgetting_compares_with_the_score_right_after_the_edit(tmp_path: Path) -> None:
    folder = execute(SPEC, tmp_path, parts=parts())
    scores = [line for line in read_lines(folder / "scores.jsonl") if line["edits"] == 50]
    lost = {line["record"]: line["value"] for line in scores if line["metric"] == "forgetting"}
    kept = {line["record"]: line["value"] for line in scores if line["metric"] == "reliability"}
    early = {line["record"]: line["value"] for line in read_lines(folder / "early.jsonl")}
    assert sum(lost.values()) > 0
    assert set(lost) <= set(kept)
    assert all(lost[record] == early[record] - kept[record] for record in lost)


def test_another_spec_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    folder = execute(SPEC, tmp_path, parts=parts())
    told = read_json(folder / "run.json")
    told["spec"]["seed"] = 4
    (folder / "run.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="another spec"):
        execute(SPEC, tmp_path, parts=parts())


def test_drawing_is_nested() -> None:
    records = letters("", None, "test")
    assert draw(records, 10, 1) == draw(records, 40, 1)[:10]
    assert draw(records, 40, 1) != draw(records, 40, 2)
    with pytest.raises(ValueError, match="61 edits are wanted, and the data set has 60"):
        draw(records, 61, 0)


def test_two_processes_never_make_the_same_run(tmp_path: Path) -> None:
    spec = RunSpec("host", "leaky", "letters", (5,), metrics=("reliability",))
    with held(tmp_path / spec.slug), pytest.raises(ValueError, match="being written by another process"):
        run.execute(spec, tmp_path, parts=parts())
    assert run.execute(spec, tmp_path, parts=parts()).exists()


def test_only_the_first_records_are_drawn_from(tmp_path: Path) -> None:
    spec = RunSpec("host", "leaky", "letters", (5,), metrics=("reliability",), within=5)
    edits = read_lines(run.execute(spec, tmp_path, parts=parts()) / "edits.jsonl")
    assert sorted(line["id"] for line in edits) == [f"r{i}" for i in range(5)]
    assert RunSpec.from_dict(spec.to_dict()) == spec
    assert "within" not in RunSpec("host", "leaky", "letters", (5,)).to_dict()


def test_some_of_many_edits_are_asked_about_and_the_first_ones_all(tmp_path: Path) -> None:
    class Early(Reliability):
        name, first = "early", 3

    registry = replace(parts(), metrics={"reliability": Reliability(), "early": Early()})
    spec = RunSpec("host", "leaky", "letters", (6, 40), metrics=("reliability", "early"), scored=8)
    folder = run.execute(spec, tmp_path, parts=registry)
    order = [line["id"] for line in read_lines(folder / "edits.jsonl")]
    asked: dict[tuple[str, int], list[int]] = {}
    for line in read_lines(folder / "scores.jsonl"):
        if line["record"] and line["metric"] in spec.metrics:
            asked.setdefault((line["metric"], line["edits"]), []).append(order.index(line["record"]))
    late = asked["reliability", 40]
    gaps = [b - a for a, b in itertools.pairwise(late)]
    assert (len(late), min(gaps) >= 4, late[0] < 5, late[-1] >= 34) == (8, True, True, True)
    assert len(asked["reliability", 6]) == 6
    assert [len(asked["early", size]) for size in (6, 40)] == [3, 3]
    assert set(asked["early", 40]) <= set(range(6))


def test_what_the_unedited_model_says_is_asked_once_for_all_methods(tmp_path: Path) -> None:
    spec = RunSpec("host", "leaky", "letters", (5,), metrics=("locality",))
    first = run.execute(spec, tmp_path, parts=parts())
    registry = replace(parts(), methods={"other": Silent, "leaky": Silent})
    for same in (replace(spec, method="other"), replace(spec, options={"a": 1})):
        other = run.execute(same, tmp_path, parts=registry)
        assert read_json(other / "before.json") == read_json(first / "before.json")
    for differs in (replace(spec, seed=1), replace(spec, part="calibration"), replace(spec, scored=2)):
        with pytest.raises(ValueError, match="was asked"):
            run.execute(differs, tmp_path, parts=registry)


def test_slugs() -> None:
    assert SPEC.slug == "host-leaky-letters-50-s3-" + SPEC.slug[-8:]
    assert SPEC.slug == RunSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))).slug
    assert replace(SPEC, model="../models/host").slug.startswith("host-leaky")
    others = [replace(SPEC, options={"a": 1}), replace(SPEC, sizes=(50,)), replace(SPEC, part="calibration")]
    assert len({spec.slug for spec in [SPEC, *others]}) == 4


def test_the_hash_of_a_slug_stays() -> None:
    assert RunSpec("tiny", "memoir", "world", (10, 100), options={"b": 1, "a": [2]}).slug.endswith("f78c518d")


def test_sizes() -> None:
    assert parse_sizes("100,10", 2) == {0: (10, 100), 1: (10, 100)}
    assert parse_sizes("10:3,100:3,1000:1") == {0: (10, 100, 1000), 1: (10, 100), 2: (10, 100)}


@pytest.mark.parametrize("text", ["", "10,", "0", "-5", "ten", "10:0", "10:x", "10,10"])
def test_bad_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--edits"):
        parse_sizes(text)


def test_options() -> None:
    assert parse_options(['a.x="y"', "a.z=[1]", "b.x=2"], ["a", "b"]) == {"a": {"x": "y", "z": [1]}, "b": {"x": 2}}


@pytest.mark.parametrize(
    ("item", "message"),
    [("a.x", "method.key=value"), ("x=1", "method.key=value"), ("c.x=1", "'c', which is not run"), ("a.x=y", "JSON")],
)
def test_bad_options_are_refused(item: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_options([item], ["a", "b"])


def test_data() -> None:
    assert parse_data(["here"], ["a", "b"]) == {"a": "here", "b": "here"}
    assert parse_data(["a=here"], ["a", "b"]) == {"a": "here"}
    with pytest.raises(ValueError, match="'c', which is not run"):
        parse_data(["c=here"], ["a"])


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown method 'x'; there are leaky"):
        execute(replace(SPEC, method="x"), tmp_path, parts=parts())
    with pytest.raises(ValueError, match="unknown data set 'x'; there are letters"):
        execute(replace(SPEC, dataset="x"), tmp_path, parts=parts())
    with pytest.raises(ValueError, match="unknown metric 'x'; there are reliability, locality"):
        execute(replace(SPEC, metrics=("x",)), tmp_path, parts=parts())
    with pytest.raises(ValueError, match="rising"):
        replace(SPEC, sizes=(10, 5))
    with pytest.raises(ValueError, match="unknown part 'train'"):
        replace(SPEC, part="train")
    assert not list(tmp_path.iterdir())


# Many runs


def work(spec: RunSpec, out: Path, command: str) -> Path:
    """A run that another process can make; of seed 1 one that fails."""
    if spec.seed == 1:
        raise ValueError("no such luck")
    return execute(spec, out, command, parts())


SWEEP = specs(["host"], ["leaky"], ["letters"], {0: (5, 20), 1: (5,), 2: (5,)}, {}, {}, ("reliability", "locality"))


def check_sweep(runs: Sequence[RunSpec], ends: Any, tmp_path: Path) -> None:
    outcomes = {outcome.spec.seed: outcome for outcome in ends}
    assert set(outcomes) == {spec.seed for spec in runs}
    assert outcomes[1].error == "ValueError: no such luck"
    for spec in runs:
        if spec.seed == 1:
            continue
        alone = execute(spec, tmp_path / "alone", parts=parts())
        assert numbers(outcomes[spec.seed].folder) == numbers(alone)


def test_runs_in_two_processes(tmp_path: Path) -> None:
    check_sweep(SWEEP, in_processes(SWEEP, tmp_path / "out", jobs=2, work=work), tmp_path)


def test_runs_on_ray(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    runs = SWEEP[:2]  # each makes a process of its own
    check_sweep(runs, on_ray(runs, tmp_path / "out", "local", jobs=1, work=work), tmp_path)


def test_what_is_shown_meanwhile(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    failed = until_done(SWEEP, tmp_path, (end(spec, tmp_path) for spec in SWEEP), console)
    assert [outcome.spec.seed for outcome in failed] == [1]
    shown = console.file.getvalue()
    assert f"{SWEEP[0].slug}  reliability" in shown
    assert "ValueError: no such luck" in shown
    assert "25/30" in shown  # edits of the two that ended well


def end(spec: RunSpec, out: Path) -> Outcome:
    try:
        return Outcome(spec, work(spec, out, ""))
    except ValueError as error:
        return Outcome(spec, None, str(error), f"ValueError: {error}")


# Many edits


def test_invented_facts() -> None:
    records = scale.invent(203, seed=1)
    assert len({record.prompt for record in records}) == len({record.id for record in records}) == 203
    assert records == scale.invent(203, seed=1)
    assert records != scale.invent(203, seed=2)
    assert not {record.subject for record in records} & {fact.subject for fact in world.facts()}
    assert {record.target for record in records} <= {fact.answer for fact in world.facts()}
    with pytest.raises(ValueError, match="can be named"):
        scale.invent(10_000_000, seed=1)


def test_scale_measures_at_each_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "ASKED", 8)
    monkeypatch.setattr(scale, "TIMED", 2)
    lines = list(scale.measure(tmp_path / "scale.jsonl", (3, 6), 0, METHODS["memoir"], {"steps": 20}))
    assert [json.loads(line) for line in (tmp_path / "scale.jsonl").read_text().splitlines()] == lines
    assert [line["edits"] for line in lines] == [3, 6]
    assert all(line["reliability"] == line["locality"] == 1.0 for line in lines)
    assert all(line["bytes per edit"] > 0 and line["forward seconds"] > 0 for line in lines)


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_says_what_it_takes(study, capsys):
    with pytest.raises(SystemExit) as left:
        app([study, "--help"])
    assert left.value.code == 0
    assert f"usage: python -m benchmarks {study}" in capsys.readouterr().out

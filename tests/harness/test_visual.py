"""Visual metrics against cases worked out by hand, the gap protocol, and whole runs on an untrained host."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.folder import read_json, read_lines, read_progress
from benchmarks.report.results import read_results
from benchmarks.visual import emblems, run
from benchmarks.visual.baselines.decoder import decoder_maps
from benchmarks.visual.inputs import Batch, Reader, Row
from benchmarks.visual.methods import METHODS
from benchmarks.visual.models import UNTRAINED, load_host
from benchmarks.visual.observation import Observed, observe
from benchmarks.visual.pictures import EmblemPicture
from benchmarks.visual.protocol import final, play, schedule
from benchmarks.visual.records import Answered, Change, Question, VisualRecord
from benchmarks.visual.run import execute
from benchmarks.visual.scoring import METRICS, agreement, compare
from benchmarks.visual.session import VisualSession
from benchmarks.visual.spec import VisualSpec, parse_gaps
from benchmarks.visual.table import figures, tables
from editmem.tiny.emblems import View

pytestmark = pytest.mark.slow

SHOWN, AGAIN, OTHER = (EmblemPicture(subject, View()) for subject in ("Chad", "Peru", "Fiji"))
RECORD = VisualRecord(
    "r",
    Change(Question("Whose?", SHOWN), ("New Town",)),
    Change(Question("Mayor of New Town?"), ("Bob Roe", "Bob")),
    visual_rephrasings=(Question("Owner?", SHOWN),),
    other_views=(Question("Whose?", AGAIN),),
    text_locality=(Answered(Question("Hamlet?"), ("Shakespeare",), "near"), Answered(Question("Faust?"), ("Goethe",))),
    picture_locality=(Answered(Question("Who?", OTHER), ("Ann",)),),
    textual_rephrasings=(Question("New Town's mayor?"), Question("Who leads New Town?")),
    textual_locality=(Answered(Question("Hamlet?"), ("Shakespeare",)),),
    compositions=(Answered(Question("Mayor of it?", SHOWN), ("Bob Roe", "Bob")),),
)


def ids(*rows: Sequence[int]) -> np.ndarray:
    return np.array(rows, dtype=np.int32)


def observed(said: Mapping[str, str], likely: Mapping[str, np.ndarray], right: float = 0.0) -> Observed:
    """All questions of `RECORD`; those about the other view are told by "again: "."""
    targets = [(change.question, change.target) for change in (RECORD.visual, RECORD.textual) if change]
    targets += [(q, "New Town") for q in (*RECORD.visual_rephrasings, *RECORD.other_views)]
    targets += [(q, "Bob Roe") for q in (*RECORD.textual_rephrasings, RECORD.compositions[0].question)]
    local = {
        (Question("Hamlet?"), "Shakespeare", 1): likely["Hamlet?"],
        (Question("Faust?"), "Goethe", 1): likely["Faust?"],
        (Question("Who?", OTHER), "Ann", 10): likely["Who?"],
    }
    every = [question for question, _ in targets] + [question for question, *_ in local]
    named = {q: said.get(f"{'again: ' if q.picture == AGAIN else ''}{q.prompt}", "") for q in every}
    return Observed(named, {key: right + number / 10 for number, key in enumerate(targets)}, local)


def test_every_metric_by_hand() -> None:
    ten = list(range(10))
    before = observed(
        {"Hamlet?": "Shakespeare.", "Faust?": "Goethe.", "Who?": "Cy"},
        {"Hamlet?": ids([1], [2], [3], [4]), "Faust?": ids([5], [6]), "Who?": ids(ten, ten)},
    )
    now = observed(
        {
            "Whose?": "New Town.", "Owner?": "New Townsend", "again: Whose?": "New Town", "Mayor of New Town?": "Bob",
            "New Town's mayor?": "Bobby", "Who leads New Town?": "Bob Roe of it", "Mayor of it?": "Roe",
            "Hamlet?": "Shakespeare.", "Faust?": "Bob Roe.", "Who?": "Cy",
        },
        {"Hamlet?": ids([1], [2], [9], [4]), "Faust?": ids([5], [6]), "Who?": ids([1, 0, *ten[2:]], ten)},
    )  # fmt: skip
    found: dict[str, list[float]] = {}
    for score in compare(RECORD, before, now):
        assert score.record == "r"
        found.setdefault(score.metric, []).append(score.value)
    assert found == {
        "VisRel": [0.0], "TextRel": [0.1], "Vis T-Gen": [0.2], "Vis I-Gen": [0.3], "Text Gen": [0.4, 0.5],
        "CompRel": [0.6], "Vis T-Loc": [0.75, 1.0], "Vis I-Loc": [0.9], "Text Loc": [0.75],
        "VisRel exact": [1.0], "Vis T-Gen exact": [0.0], "Vis I-Gen exact": [1.0], "TextRel exact": [1.0],
        "Text Gen exact": [0.0, 1.0], "CompRel exact": [0.0], "Vis T-Loc unchanged": [1.0, 0.0],
        "Vis I-Loc unchanged": [1.0], "Text Loc unchanged": [1.0],
    }  # fmt: skip
    assert [s.kind for s in compare(RECORD, before, now) if s.metric == "Vis T-Loc"] == ["near", ""]


def test_a_record_without_a_textual_edit_has_no_scores_of_it() -> None:
    record = replace(RECORD, textual=None, textual_rephrasings=(), textual_locality=(), compositions=())
    blank = observed({}, {"Hamlet?": ids([1]), "Faust?": ids([1]), "Who?": ids([1])})
    named = {score.metric for score in compare(record, blank, blank)}
    assert {name.split()[0] for name in METRICS} - {name.split()[0] for name in named} == {"TextRel", "Text", "CompRel"}


def test_agreement_compares_from_the_right_rank_by_rank() -> None:
    assert agreement(ids([1, 2], [3, 4]), ids([2, 1], [3, 4])) == 0.5
    assert agreement(ids([1, 2], [3, 4]), ids([7, 7], [9, 2], [3, 4])) == 0.75


def test_rows_are_read_from_the_right() -> None:
    """Two rows, the first padded by one on the left, the second with an answer of one token; the host says one more."""
    batch = Batch({"input_ids": torch.tensor([[0, 5, 6, 7], [1, 2, 3, 4]])}, (3, 4), (2, 1))
    logits = torch.arange(10.0).view(2, 5, 1)
    first, second = batch.rows(logits)
    assert first.logits.flatten().tolist() == [2, 3, 4]
    assert first.telling.flatten().tolist() == [2, 3]
    assert (first.wanted.tolist(), second.wanted.tolist()) == ([6, 7], [4])
    assert second.telling.flatten().tolist() == [8]
    assert batch.prompts == [1, 3]
    told = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert Row(told, torch.tensor([1, 2])).telling.argmax(-1).tolist() == [1, 0]


@pytest.fixture(scope="module")
def host() -> tuple[Any, Any]:
    return load_host(UNTRAINED)


def test_a_batch_says_what_its_rows_say_alone(host: tuple[Any, Any]) -> None:
    model, processor = host
    session = METHODS["none"](model, processor, {}, 0)
    questions = [Question("Whose emblem is this?", SHOWN), Question("The capital of Chad is"), Question("Name:", OTHER)]
    targets = ["Chad", "N'Djamena", "the owner of it"]
    accuracy, top = session.token_accuracy(questions, targets), session.top_ids(questions, targets, 3)
    said = session.answers(questions, 4)
    assert accuracy[1] == 1.0
    for i, (question, target) in enumerate(zip(questions, targets, strict=True)):
        alone = processor(
            text=[f"{'<image>' if question.picture else ''}{question.prompt} {target}"],
            images=[question.picture.pixels()] if question.picture else None,
            return_tensors="pt",
        )
        with torch.no_grad():
            logits = model(**alone).logits[0]
        count = len(processor.tokenizer(f" {target}", add_special_tokens=False)["input_ids"])
        wanted, likeliest = alone["input_ids"][0, -count:], logits.argmax(-1)[-count - 1 : -1]
        assert accuracy[i] == pytest.approx((wanted == likeliest).float().mean().item())
        assert top[i].shape == (len(logits), 3)
        assert np.mean(top[i] == logits.topk(3).indices.numpy()) > 0.99
        assert said[i] == session.answers([question], 4)[0]


def test_decoder_maps_leave_the_vision_tower_alone(host: tuple[Any, Any]) -> None:
    blocks = decoder_maps("test", host[0], ("q_proj", "down_proj"))
    assert len(blocks) == host[0].config.text_config.num_hidden_layers
    assert all("language_model" in path for block in blocks for path in block)
    with pytest.raises(ValueError, match="test: block 0 has no linear map fc1; it has down_proj, gate_proj"):
        decoder_maps("test", host[0], ("fc1",))


def test_serac_gives_the_answer_of_the_edit_that_a_question_is_in_the_scope_of(host: tuple[Any, Any]) -> None:
    session = METHODS["serac"](*host, {"records": 10, "steps": 50}, 0)
    session.prepare(lambda: emblems.draw("calibration"))
    change = emblems.draw("test")[0].visual
    unseen = Question("The capital of Chad is")
    bare = session.top_ids([change.question, unseen], ["Chad", "Chad"], 3)
    assert session.write(change)
    assert session.answers([change.question]) == [change.target]
    assert session.token_accuracy([change.question, unseen], [change.target, "N'Djamena"]) == [1.0, 1.0]
    own, other = session.top_ids([change.question, unseen], ["Chad", "Chad"], 3)
    assert np.array_equal(other, bare[1])
    changed = (own != bare[0]).any(1)
    answer = session.reader.count("Chad") + 1
    assert changed[-answer]
    assert not changed[:-answer].any()


class Remembers(VisualSession):
    """Notes what happens, and answers nothing."""

    name = "remembers"

    def __init__(self) -> None:
        self.done: list[str] = []
        self.reader = Reader.__new__(Reader)
        self.reader.tokenizer = lambda text, **_: {"input_ids": text.split()}

    def write(self, change: Change) -> bool | None:
        self.done.append(f"{'visual' if change.question.picture else 'textual'} {change.target}")
        return None

    def save(self, folder: Path) -> None:
        """Nothing is kept."""

    restore = save

    def answers(self, questions: Sequence[Question], tokens: int = 12) -> list[str]:
        self.done.append(f"asked {questions[0].prompt}")
        return ["" for _ in questions]

    def token_accuracy(self, questions: Sequence[Question], targets: Sequence[str]) -> list[float]:
        return [0.0 for _ in questions]

    def top_ids(self, questions: Sequence[Question], answers: Sequence[str], k: int) -> list[np.ndarray]:
        return [np.zeros((1, k), np.int32) for _ in questions]


def numbered(count: int) -> list[VisualRecord]:
    return [
        replace(
            RECORD,
            id=f"r{i}",
            visual=Change(Question(f"Q{i}", SHOWN), (f"v{i}",)),
            textual=Change(Question(f"T{i}"), (f"t{i}",)) if i != 1 else None,
        )
        for i in range(count)
    ]


def test_the_protocol_edits_in_pairs_and_scores_after_the_gap() -> None:
    session, records = Remembers(), numbered(3)
    before = {record.id: observe(session, record) for record in records}
    session.done.clear()
    played = list(play(session, records, schedule(3, (2, 0)), before))
    assert session.done == [
        "visual v0", "textual t0", "asked Q0",
        "visual v1", "asked Q1",
        "visual v2", "textual t2", "asked Q2", "asked Q0",
    ]  # fmt: skip
    assert [written.id for step in played for written in step.written] == [
        "r0 visual", "r0 textual", "r1 visual", "r2 visual", "r2 textual",
    ]  # fmt: skip
    due = [{(gap, score.record) for gap, score in step.scores} for step in played]
    assert due == [{(0, "r0")}, {(0, "r1")}, {(0, "r2"), (2, "r0")}]
    session.done.clear()
    assert [scores[0].record for scores in final(session, records[:2], before)] == ["r0", "r1"]
    assert session.done == ["asked Q0", "asked Q1"]


def test_the_schedule_of_the_paper() -> None:
    steps = schedule(600, scored=500)
    assert [step.due for step in (steps[0], steps[9], steps[10], steps[499], steps[599])] == [
        ((0, 0),), ((0, 9),), ((0, 10), (10, 0)),
        ((0, 499), (10, 489), (20, 479), (50, 449), (100, 399)), ((100, 499),),
    ]  # fmt: skip
    for gap in (0, 10, 20, 50, 100):
        assert [number for step in steps for own, number in step.due if own == gap] == list(range(500))


def test_gaps_and_specs_are_checked() -> None:
    assert parse_gaps("100, 0,10") == (0, 10, 100)
    with pytest.raises(ValueError, match="cannot read --gaps '0,x'"):
        parse_gaps("0,x")
    spec = VisualSpec("m", "none", "emblems", 5, (0, 2), options={"a": 1})
    assert VisualSpec.from_dict(spec.to_dict()) == spec
    assert replace(spec, seed=1).slug != spec.slug
    with pytest.raises(ValueError, match="of 5 records that are edited, 1 to all can be scored, not 6"):
        replace(spec, scored=6)


SPEC = VisualSpec(UNTRAINED, "none", "emblems", 3, (0, 1))


def scores(folder: Path) -> list[dict[str, Any]]:
    return read_lines(folder / "scores.jsonl")


def test_a_run_without_edits_changes_nothing(tmp_path: Path) -> None:
    folder = execute(SPEC, tmp_path)
    assert read_progress(folder).finished
    assert len(read_lines(folder / "edits.jsonl")) == 6
    lines = scores(folder)
    assert [sum(line["gap"] == gap and line["metric"] == "VisRel" for line in lines) for gap in (0, 1, "final")] == [
        3,
        2,
        3,
    ]
    bare = numbered_lines(lines, "before")
    for gap in (0, 1, "final"):
        for key, value in numbered_lines(lines, gap).items():
            assert value == bare[key]
            assert value == 1.0 or "Loc" not in key[1]
    assert {"before", "gap 0", "gap 1", "final"} <= {cell.strip() for cell in tables([folder]).split("|")}
    means = {(line["metric"], line["kind"], line["gap"]): line["mean"] for line in figures(tmp_path)}
    wanted = [line["value"] for line in lines if line["metric"] == "VisRel" and line["gap"] == "final"]
    assert means["VisRel", "", "final"] == pytest.approx(sum(wanted) / len(wanted), abs=1e-4)
    with pytest.raises(ValueError, match="holds no runs"):
        read_results(tmp_path)


def numbered_lines(lines: list[dict[str, Any]], gap: int | str) -> dict[tuple[str, str, str, int], float]:
    """Values of one gap, by record, metric, kind, and number among those of the same."""
    found: dict[tuple[str, str, str, int], float] = {}
    for line in lines:
        if line["gap"] == gap:
            own = line["record"], line["metric"], line["kind"]
            found[*own, sum(key[:3] == own for key in found)] = line["value"]
    return found


def test_lora_learns_and_the_host_stays(tmp_path: Path) -> None:
    folder = execute(replace(SPEC, method="lora", options={"rate": 3e-3}), tmp_path)
    by_gap: dict[tuple[int | str, str], list[float]] = {}
    for line in scores(folder):
        by_gap.setdefault((line["gap"], line["metric"]), []).append(line["value"])
    assert np.mean(by_gap[0, "VisRel"]) > np.mean(by_gap["before", "VisRel"]) + 0.3
    assert np.mean(by_gap[0, "TextRel exact"]) == 1.0
    assert np.mean(by_gap[0, "Vis I-Loc"]) < 1.0
    model, processor = load_host(UNTRAINED)
    session = METHODS["lora"](model, processor, {"rate": 3e-3}, 0)
    bare = session.top_ids([RECORD.visual.question], ["Chad"], 5)[0]
    session.restore(folder / "state" / "3")
    assert not np.array_equal(session.top_ids([RECORD.visual.question], ["Chad"], 5)[0], bare)
    with session.model.disable_adapter():
        assert np.array_equal(session.top_ids([RECORD.visual.question], ["Chad"], 5)[0], bare)


class Killed(BaseException):
    """Stands for a signal: nothing in the harness catches it."""


@pytest.mark.parametrize("method", ["finetune", "serac"])
def test_a_run_that_is_killed_ends_like_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(run, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(emblems, "SPARE", 108)
    options = {"serac": {"steps": 5}, "finetune": {"rate": 1e-2}}[method]
    spec = replace(SPEC, method=method, options=options)
    whole = scores(execute(spec, tmp_path / "whole"))
    keep, kept = run._Run._keep, []

    def dies(self: Any, played: Any) -> None:
        kept.append(played)
        if len(kept) == 2:
            raise Killed
        keep(self, played)

    monkeypatch.setattr(run._Run, "_keep", dies)
    with pytest.raises(Killed):
        execute(spec, tmp_path / "killed")
    folder = tmp_path / "killed" / spec.slug
    assert read_progress(folder).edits == 1
    assert scores(execute(spec, tmp_path / "killed")) == whole
    edits = [(line["edit"], line["id"], line["took"]) for line in read_lines(folder / "edits.jsonl")]
    again = [
        (line["edit"], line["id"], line["took"]) for line in read_lines(tmp_path / "whole" / spec.slug / "edits.jsonl")
    ]
    assert edits == again


def test_the_command_line(tmp_path: Path) -> None:
    arguments = ["visual", "--model", UNTRAINED, "--method", "none", "--dataset", "cckeb", "--edits", "1"]
    data = tmp_path / "CCKEB_eval.json"
    data.write_text("[]")
    unknown = CliRunner().invoke(app, [*arguments, "--method", "nothing", "--out", str(tmp_path)])
    assert (unknown.exit_code, "unknown visual method 'nothing'" in unknown.output) == (2, True)
    gaps = CliRunner().invoke(app, [*arguments, "--gaps", "a", "--out", str(tmp_path)])
    assert (gaps.exit_code, "cannot read --gaps" in gaps.output) == (2, True)
    short = CliRunner().invoke(app, [*arguments, "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert (short.exit_code, "the data set has 0 records" in short.output) == (1, True)


def test_the_command_line_runs_and_tells(tmp_path: Path) -> None:
    arguments = ["visual", "--model", UNTRAINED, "--method", "none", "--dataset", "emblems", "--edits", "1"]
    done = CliRunner().invoke(app, [*arguments, "--gaps", "0", "--no-final", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (folder,) = tmp_path.iterdir()
    assert read_json(folder / "run.json")["spec"]["gaps"] == [0]
    assert {line["gap"] for line in scores(folder)} == {"before", 0}
    assert json.loads((folder / "before.jsonl").read_text())["record"]
    assert "none on untrained-vision, emblems, 1 records" in done.output

"""Visual data sets: real formats read, bad records named, the picture world in parts that never overlap."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.records import RecordError
from benchmarks.visual import emblems
from benchmarks.visual.datasets import load
from benchmarks.visual.pictures import EmblemPicture, FilePicture, NamedPicture
from benchmarks.visual.records import Answered, Change, Question, Split, VisualRecord
from editmem.tiny.world import COUNTRY_RELATIONS, Fact, facts
from scripts.tiny.build_vision import NAMING, OWNER

pytestmark = pytest.mark.slow

VLKEB = {
    "src": "What town is this?", "rephrase": "Which town do you see?", "pred": "Old_Town,_Ohio", "alt": "New Town",
    "image": "m.1/a.jpg", "image_rephrase": "m.1/b.jpg", "loc": "who wrote hamlet", "loc_ans": "Shakespeare",
    "m_loc": "m.2/c.jpg", "m_loc_q": "Who is she?", "m_loc_a": "Ann",
}  # fmt: skip
LEVELS = "Image Level: {}\nText Level: {}"
CCKEB = {
    **VLKEB,
    "src_q": LEVELS.format("What [town is this]?", "None"),
    "rephrase_q": "1. Image Level: No\n2. Text Level: None\n\nImage Level: Which [town] do you see?\nText Level: None",
    "m_loc_q_q": LEVELS.format("Who is [she]?", "None"),
    "port_new": [{"port_type": "comp", "Q&A": {
        "Question": "Who is mayor of this town?", "Answer": "Bob Roe Cy",
        "Query": LEVELS.format("What is [this town]?", "Who is mayor of [this town]?")}}],
    "textual_edit": {
        "src": "Who is mayor of New Town?", "rephrase": "New Town's mayor is?", "pred": ["Dan", "Cy"],
        "alt": ["Bob Roe", "Cy"], "loc": "who wrote hamlet", "loc_ans": "Shakespeare"},
}  # fmt: skip
EDIT: dict[str, Any] = CCKEB["textual_edit"]  # type: ignore[assignment]


def write(folder: Path, name: str, *rows: Any) -> Path:
    (folder / name).write_text(json.dumps(rows), encoding="utf-8")
    return folder


def test_vlkeb(tmp_path: Path) -> None:
    [record] = load("vlkeb", write(tmp_path, "eval.json", VLKEB))
    shown = NamedPicture("m.1/a.jpg")
    assert record == VisualRecord(
        "0",
        Change(Question("What town is this?", shown), ("New Town",), ("Old Town, Ohio",)),
        visual_rephrasings=(Question("Which town do you see?", shown),),
        other_views=(Question("What town is this?", NamedPicture("m.1/b.jpg")),),
        text_locality=(
            Answered(Question("who wrote hamlet", split=Split(None, "who wrote hamlet")), ("Shakespeare",)),
        ),
        picture_locality=(Answered(Question("Who is she?", NamedPicture("m.2/c.jpg")), ("Ann",)),),
        where="eval.json, record 0",
    )
    assert record.visual.target == "New Town"


def test_cckeb(tmp_path: Path) -> None:
    [record] = load("cckeb", write(tmp_path, "CCKEB_eval.json", CCKEB))
    assert record.visual.question.split == Split("What town is this?", None)
    assert record.visual_rephrasings[0].split == Split("Which town do you see?", None)
    assert record.textual is not None
    assert (record.textual.target, record.textual.answers) == ("Bob Roe Cy", ("Bob Roe Cy", "Bob Roe"))
    assert record.textual.old == ("Dan", "Cy")
    assert record.textual.question.prompt == "Who is mayor of New Town?"
    assert [question.prompt for question in record.textual_rephrasings] == ["New Town's mayor is?"]
    assert record.textual_locality == record.text_locality
    split = Split("What is this town?", "Who is mayor of [this town]?")
    question = Question("Who is mayor of this town?", NamedPicture("m.1/a.jpg"), split)
    assert record.compositions == (Answered(question, ("Bob Roe Cy", "Bob Roe")),)


def test_every_alternative_is_accepted_where_all_were_right_before(tmp_path: Path) -> None:
    row = {**CCKEB, "textual_edit": {**EDIT, "pred": ["Cy", "Bob Roe", "Dan"]}}
    [record] = load("cckeb", write(tmp_path, "CCKEB_eval.json", row))
    assert record.textual is not None
    assert record.textual.answers == ("Bob Roe Cy", "Bob Roe", "Cy")


def test_parts_are_files_of_their_own(tmp_path: Path) -> None:
    write(write(tmp_path, "eval.json", VLKEB), "train.json", VLKEB, VLKEB)
    assert [len(load("vlkeb", tmp_path, part)) for part in ("test", "calibration")] == [1, 2]
    assert len(load("vlkeb", tmp_path / "train.json", "calibration")) == 2
    with pytest.raises(ValueError, match=r"train\.json is not eval\.json"):
        load("vlkeb", tmp_path / "train.json")


BAD = [
    ("vlkeb", {**VLKEB, "alt": None}, "record 1: no field 'alt'"),
    ("vlkeb", {**VLKEB, "m_loc": 3}, "record 1: field 'm_loc' must be a text"),
    ("cckeb", {**CCKEB, "textual_edit": None}, "record 1: no field 'textual_edit'"),
    ("cckeb", {**CCKEB, "textual_edit": {**EDIT, "alt": []}}, "record 1, textual_edit: field 'alt' must hold an "),
    ("cckeb", {**CCKEB, "port_new": []}, "record 1: field 'port_new' must hold a question"),
    ("cckeb", {**CCKEB, "port_new": [{"port_type": "hop"}]}, r"record 1, port_new\[0\]: field 'port_type' must be "),
    ("cckeb", {**CCKEB, "src_q": "What?"}, "record 1: field 'src_q' must have an image level and a text level"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "message"), BAD)
def test_a_bad_record_is_named(tmp_path: Path, name: str, row: dict[str, Any], message: str) -> None:
    file, good = {"vlkeb": ("eval.json", VLKEB), "cckeb": ("CCKEB_eval.json", CCKEB)}[name]
    with pytest.raises(RecordError, match=f"{file}, {message}"):
        load(name, write(tmp_path, file, good, row))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("nothing",), ValueError, "unknown visual data set 'nothing'; there are emblems, cckeb, vlkeb"),
        (("cckeb", None, "train"), ValueError, "unknown part 'train'"),
        (("cckeb",), ValueError, r"give a folder with CCKEB_eval\.json"),
        (("vlkeb", "no/such"), FileNotFoundError, r"no eval\.json in no/such"),
        (("emblems", "folder"), ValueError, "come with the library; they cannot be read from folder"),
    ],
)
def test_bad_calls_are_refused(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load(*arguments)


def test_pictures_are_read_from_a_folder(tmp_path: Path) -> None:
    data = write(tmp_path, "eval.json", VLKEB)
    folder = tmp_path / "images"
    for number, name in enumerate(("m.1/a.jpg", "m.1/b.jpg")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((5, 7, 3), 100 * number, np.uint8)).save(folder / name)
    with pytest.raises(
        RecordError, match=r"eval\.json, record 0: field 'm_loc' names a picture that is not there: .*c\.jpg"
    ):
        load("vlkeb", data, pictures=folder)
    (folder / "m.2").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "m.2/c.jpg")
    [record] = load("vlkeb", data, pictures=folder)
    assert record.other_views[0].picture == FilePicture(folder / "m.1/b.jpg")
    assert (record.other_views[0].picture.pixels() == 100).all()
    assert record.visual.question.picture is not None
    assert record.visual.question.picture.pixels().shape == (5, 7, 3)
    assert record.picture_locality[0].question.picture is not None
    assert record.picture_locality[0].question.picture.pixels().shape == (4, 4, 3)


def test_stand_ins_are_drawn_from_their_names() -> None:
    own, view, other = (NamedPicture(name).pixels().astype(int) for name in ("m.1/a.jpg", "m.1/b.jpg", "m.2/a.jpg"))
    assert own.shape == (48, 48, 3)
    assert np.array_equal(own, NamedPicture("m.1/a.jpg").pixels())
    assert not np.array_equal(own, view)
    middles = [picture[4::8, 4::8].ravel() for picture in (own, view, other)]
    near, far = (np.corrcoef(middles[0], those)[0, 1] for those in middles[1:])
    assert near > 0.5 > abs(far)


SORTS = {fact.subject: fact.relation in COUNTRY_RELATIONS for fact in facts()}
TRUTH = {(fact.subject, fact.relation): fact.answer for fact in facts()}
ASKED = {prompt: fact for fact in facts() for prompt in fact.prompts()}


def test_subjects_of_the_two_lists_are_apart() -> None:
    tested, held_out = emblems.subjects()
    assert (len(tested), len(held_out)) == (500, 114)
    assert set(tested) | set(held_out) == set(SORTS)
    assert emblems.subjects() == (tested, held_out)


def owners(record: VisualRecord) -> set[str]:
    """Whose emblems a record shows, and of whom it asks facts by name."""
    rows = [record.visual.question, *record.other_views, *(a.question for a in record.picture_locality)]
    named = [a.question.prompt for a in (*record.text_locality, *record.textual_locality)]
    shown = {row.picture.subject for row in rows if isinstance(row.picture, EmblemPicture)}
    return shown | {ASKED[prompt].subject for prompt in named} | {record.visual.target}


def test_parts_of_the_picture_world_edit_different_subjects() -> None:
    tested, held_out = emblems.subjects()
    spare = held_out[-emblems.SPARE :]
    for part, edited in (("test", tested), ("calibration", held_out[: -emblems.SPARE])):
        records = load("emblems", part=part)
        assert Counter(record.visual.old[0] for record in records) == Counter(edited)
        assert Counter(record.visual.target for record in records) == Counter(edited)
        assert all(owners(record) <= {*edited, *spare} for record in records)
        assert records == load("emblems", part=part)
        assert records != emblems.draw(part, seed=1)


def test_a_record_of_the_picture_world() -> None:
    records = load("emblems")
    touched = {(record.visual.target, changed(record).relation) for record in records}
    for record in records:
        (old,), new, fact = record.visual.old, record.visual.target, changed(record)
        assert old != new
        assert SORTS[old] == SORTS[new]
        assert record.visual.question.prompt in NAMING
        assert fact.subject == new
        assert record.textual is not None
        assert record.textual.old == (TRUTH[new, fact.relation],)
        assert record.textual.target not in {TRUTH[new, fact.relation], TRUTH.get((old, fact.relation))}
        assert record.textual.target in {answer for (_, relation), answer in TRUTH.items() if relation == fact.relation}
        assert {ASKED[question.prompt] for question in record.textual_rephrasings} == {fact}
        (composed,) = record.compositions
        assert composed.question.picture == record.visual.question.picture
        assert composed.question.prompt in Fact(OWNER, fact.relation, "").prompts()
        assert composed.answers == (record.textual.target,)
        assert {question.picture for question in record.other_views}.isdisjoint([record.visual.question.picture])
        assert record.visual.question.prompt not in {question.prompt for question in record.visual_rephrasings}
        for probes, own in ((record.text_locality, old), (record.textual_locality, new)):
            kept = {probe.kind: ASKED[probe.question.prompt] for probe in probes}
            assert kept["same subject"].subject == own
            assert all((f.subject, f.relation) not in touched for f in kept.values())
            assert all(probe.answers == (ASKED[probe.question.prompt].answer,) for probe in probes)


def changed(record: VisualRecord) -> Fact:
    assert record.textual is not None
    return ASKED[record.textual.question.prompt]

"""CCKEB: VLKEB's edits, each with an edit of a fact of the new entity and a question that takes both."""

from dataclasses import replace
from pathlib import Path

from benchmarks.datasets.rows import Row
from benchmarks.visual.pictures import Picture
from benchmarks.visual.reading import joined, rows_of
from benchmarks.visual.records import Answered, Change, Question, Split, VisualRecord
from benchmarks.visual.vlkeb import split_of, text_locality, visual_record

FILES = {"calibration": "CCKEB_train.json", "test": "CCKEB_eval.json"}


def read(data: str | Path | None, part: str, pictures: Path | None = None) -> list[VisualRecord]:
    """The records of `CCKEB_eval.json` (test) or `CCKEB_train.json` (calibration); MemEIC, arXiv 2510.25798.

    A fact may have several new answers: they are one target, joined by spaces, as the paper has it, and each of them
    is accepted of generated text, but for those that were right before (some are, in 79 of 1,278 records).

    Args:
        data, part, pictures: as `vlkeb.read` takes them.

    Raises:
        ValueError: if the file is the other part's.
        FileNotFoundError: if it is not there.
        RecordError: if a record cannot be read, naming file, record and field.
    """
    return [_record(row, pictures) for row in rows_of(data, FILES[part])]


def _record(row: Row, pictures: Path | None) -> VisualRecord:
    record, edit = visual_record(row, pictures), row.row("textual_edit")
    if not edit.texts("alt"):
        raise edit.error("alt", "must hold an answer")
    old = edit.texts("pred")
    answers = joined(edit.texts("alt"), old)
    compositions = [_composition(item, record.visual.question.picture, answers) for item in row.rows("port_new")]
    if not compositions:
        raise row.error("port_new", "must hold a question")
    return replace(
        record,
        textual=Change(_fact(edit, "src"), answers, old),
        textual_rephrasings=(_fact(edit, "rephrase"),),
        textual_locality=(text_locality(edit),),
        compositions=tuple(compositions),
    )


def _fact(edit: Row, field: str) -> Question:
    prompt = edit.text(field)
    return Question(prompt, split=Split(None, prompt))


def _composition(item: Row, picture: Picture | None, answers: tuple[str, ...]) -> Answered:
    if item.text("port_type") != "comp":
        raise item.error("port_type", f"must be 'comp', not {item.text('port_type')!r}")
    asked = item.row("Q&A")
    target = asked.text("Answer")
    accepted = answers if target == answers[0] else (target,)
    return Answered(Question(asked.text("Question"), picture, split_of(asked, "Query")), accepted)

"""VLKEB: pictures of entities of a knowledge graph, each to be answered with another entity's name."""

import re
from pathlib import Path

from benchmarks.datasets.rows import Row
from benchmarks.visual.pictures import Picture
from benchmarks.visual.reading import picture_of, rows_of
from benchmarks.visual.records import Answered, Change, Question, Split, VisualRecord

FILES = {"calibration": "train.json", "test": "eval.json"}


def read(data: str | Path | None, part: str, pictures: Path | None = None) -> list[VisualRecord]:
    """The records of `eval.json` (test) or `train.json` (calibration); Huang et al., arXiv 2403.07350.

    They have visual edits only.

    Args:
        data: the file, or a folder that holds it.
        part: "test" or "calibration".
        pictures: the folder that picture paths are relative to; None to draw a stand-in from each path.

    Raises:
        ValueError: if the file is the other part's.
        FileNotFoundError: if it is not there.
        RecordError: if a record cannot be read, naming file, record and field.
    """
    return [visual_record(row, pictures) for row in rows_of(data, FILES[part])]


def visual_record(row: Row, pictures: Path | None) -> VisualRecord:
    """The fields that VLKEB and CCKEB share; splits where there are any."""
    image, target = picture_of(row, "image", pictures), row.text("alt")
    return VisualRecord(
        id=str(row.number),
        visual=Change(_question(row, "src", image, "src_q"), (target,), (row.text("pred").replace("_", " "),)),
        visual_rephrasings=(_question(row, "rephrase", image, "rephrase_q"),),
        other_views=(_question(row, "src", picture_of(row, "image_rephrase", pictures), "src_q"),),
        text_locality=(text_locality(row),),
        picture_locality=(
            Answered(
                _question(row, "m_loc_q", picture_of(row, "m_loc", pictures), "m_loc_q_q"), (row.text("m_loc_a"),)
            ),
        ),
        where=row.where,
    )


def text_locality(row: Row) -> Answered:
    """The unrelated question and its answer."""
    prompt = row.text("loc")
    return Answered(Question(prompt, split=Split(None, prompt)), (row.text("loc_ans"),))


def _question(row: Row, field: str, picture: Picture, split: str) -> Question:
    return Question(row.text(field), picture, split_of(row, split) if split in row else None)


def split_of(row: Row, field: str) -> Split:
    """A split from "Image Level: What's [the city]?" and "Text Level: Who is mayor of [the city]?" on lines.

    Of an image level the brackets are taken off. Where a level comes more than once, as in seven records whose splits
    hold the steps that led to them, the last one counts; "None" is none.

    Raises:
        RecordError: if the field has not both levels.
    """
    text = row.text(field)
    levels = [re.findall(rf"{name} Level:[ \t]*(\S.*)", text) for name in ("Image", "Text")]
    if not all(levels):
        raise row.error(field, f"must have an image level and a text level, not {text!r}")
    image, fact = (None if found[-1].strip() == "None" else found[-1].strip() for found in levels)
    return Split(image and image.replace("[", "").replace("]", ""), fact)

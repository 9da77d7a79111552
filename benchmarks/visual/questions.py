"""Which questions of a record each metric is taken of. The definitions are MemEIC's (arXiv 2510.25798, and its
repository, MultimodalTrainer.py), where each is one question; a data set with several gives each a score."""

from collections.abc import Callable, Sequence

from benchmarks.visual.records import Answered, Change, Question, VisualRecord

Asked = Callable[[VisualRecord], Sequence[Answered]]


def vis_rel(record: VisualRecord) -> Sequence[Answered]:
    """The edited picture with the edited question: the new entity is right."""
    return _same(record.visual, [record.visual.question])


def vis_t_gen(record: VisualRecord) -> Sequence[Answered]:
    """The edited picture with the question in other words: the new entity is right."""
    return _same(record.visual, record.visual_rephrasings)


def vis_i_gen(record: VisualRecord) -> Sequence[Answered]:
    """Another picture of the same entity with the edited question: the new entity is right."""
    return _same(record.visual, record.other_views)


def vis_t_loc(record: VisualRecord) -> Sequence[Answered]:
    """A question without a picture that the visual edit has nothing to do with: it is to be answered as before."""
    return record.text_locality


def vis_i_loc(record: VisualRecord) -> Sequence[Answered]:
    """A question about a picture of another entity: it is to be answered as before."""
    return record.picture_locality


def text_rel(record: VisualRecord) -> Sequence[Answered]:
    """The edited question of the textual edit: its new answer is right."""
    return _same(record.textual, [record.textual.question]) if record.textual else ()


def text_gen(record: VisualRecord) -> Sequence[Answered]:
    """The question of the textual edit in other words: its new answer is right."""
    return _same(record.textual, record.textual_rephrasings) if record.textual else ()


def text_loc(record: VisualRecord) -> Sequence[Answered]:
    """A question that the textual edit has nothing to do with: it is to be answered as before. In CCKEB it is the very
    question of `vis_t_loc`."""
    return record.textual_locality


def comp_rel(record: VisualRecord) -> Sequence[Answered]:
    """The edited picture with the edited fact asked of what it shows: the textual edit's new answer is right."""
    return record.compositions


def _same(change: Change, questions: Sequence[Question]) -> Sequence[Answered]:
    return [Answered(question, change.answers) for question in questions]


# What has a right answer.
TARGETS: dict[str, Asked] = {
    "VisRel": vis_rel,
    "Vis T-Gen": vis_t_gen,
    "Vis I-Gen": vis_i_gen,
    "TextRel": text_rel,
    "Text Gen": text_gen,
    "CompRel": comp_rel,
}
# What must stay as it was, and how many of the likeliest tokens are compared.
LOCAL: dict[str, tuple[Asked, int]] = {
    "Vis T-Loc": (vis_t_loc, 1),
    "Vis I-Loc": (vis_i_loc, 10),
    "Text Loc": (text_loc, 1),
}

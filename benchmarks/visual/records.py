"""What every visual data set is turned into: an edit of a picture, an edit of a fact, and all that is asked of them."""

from dataclasses import dataclass

from benchmarks.visual.pictures import Picture


@dataclass(frozen=True)
class Split:
    """A question taken apart, as CCKEB stores it.

    Attributes:
        image: what it asks of the picture; None for nothing.
        text: what it asks of a fact, with what the picture shows in square brackets; None for nothing.
    """

    image: str | None
    text: str | None


@dataclass(frozen=True)
class Question:
    """What is put to the model.

    Attributes:
        prompt: the text, without any mark of the picture.
        picture: what is shown with it; None for text alone.
        split: the data set's own division of the question; None where it has none.
    """

    prompt: str
    picture: Picture | None = None
    split: Split | None = None


@dataclass(frozen=True)
class Answered:
    """A question and what counts as right.

    Attributes:
        question: what is asked.
        answers: every accepted answer; the first is the one that is teacher-forced.
        kind: which of several sorts of question it is; "" where there is one only.
    """

    question: Question
    answers: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class Change:
    """An edit: visual if its question has a picture, textual if not.

    Attributes:
        question: what is edited.
        answers: every accepted form of the new answer; the first is the target.
        old: what was right before.
    """

    question: Question
    answers: tuple[str, ...]
    old: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        return self.answers[0]


@dataclass(frozen=True)
class VisualRecord:
    """A visual edit, the textual edit that follows it, and their questions.

    Attributes:
        id: unique in its data set.
        visual: the picture of an entity is to be answered with another entity's name.
        textual: a fact of that other entity; None where the data set has visual edits only.
        visual_rephrasings: the edited picture with the question in other words.
        other_views: the edited question with other pictures of the entity.
        text_locality: questions without a picture that must stay as they were under the visual edit.
        picture_locality: questions about pictures of other entities, which must stay as they were.
        textual_rephrasings: the fact asked in other words.
        textual_locality: questions without a picture that must stay as they were under the textual edit.
        compositions: the edited fact, asked of whom or what the edited picture shows: right if both edits hold.
        where: file and record number, for messages.
    """

    id: str
    visual: Change
    textual: Change | None = None
    visual_rephrasings: tuple[Question, ...] = ()
    other_views: tuple[Question, ...] = ()
    text_locality: tuple[Answered, ...] = ()
    picture_locality: tuple[Answered, ...] = ()
    textual_rephrasings: tuple[Question, ...] = ()
    textual_locality: tuple[Answered, ...] = ()
    compositions: tuple[Answered, ...] = ()
    where: str = ""

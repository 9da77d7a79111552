"""What a metric is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.metrics.questions import Questions
from benchmarks.records import Record
from benchmarks.session import Session


@dataclass(frozen=True)
class Score:
    """One figure.

    Attributes:
        metric: a key of `METRICS`, such as "reliability".
        kind: of the probe, or what else the metric tells apart; "" for none.
        record: id of the record; "" for a figure of the whole run.
        value: in the metric's unit.
    """

    metric: str
    kind: str
    record: str
    value: float


class Metric(ABC):
    """A figure with one definition.

    Attributes:
        name: key in `METRICS`.
        group: what it may be compared with; figures of different groups never stand in one column.
        better: "higher" or "lower".
        default: whether a run takes it without being asked to.
        first: it is about the first so many edits, however many there are; None for all.
    """

    name: str
    group: str
    better: str = "higher"
    default: bool = True
    first: int | None = None

    def before(self, session: Session, records: Sequence[Record]) -> Any:
        """What is needed of the unedited model, as plain data; None for nothing."""
        return None

    @abstractmethod
    def after(self, session: Session, records: Sequence[Record], before: Any) -> list[Score]:
        """The figures of the edited model.

        Args:
            session: with all edits made.
            records: the edits that are in force (see `in_force`).
            before: what `before` returned for the same records.
        """


class QuestionMetric(Metric):
    """A metric that can be taken of several sorts of questions, with a name for each.

    Args:
        name: see `Metric`.
        questions: what is asked of the records.
    """

    def __init__(self, name: str, questions: Questions) -> None:
        self.name, self.questions = name, questions

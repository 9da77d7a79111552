"""The gap protocol: edits in pairs, and each record scored when a given number of later pairs has been made."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.metrics.base import Score
from benchmarks.session import Written
from benchmarks.visual.observation import Observed
from benchmarks.visual.records import VisualRecord
from benchmarks.visual.scoring import score
from benchmarks.visual.session import VisualSession

GAPS = (0, 10, 20, 50, 100)


@dataclass(frozen=True)
class Step:
    """One step of the protocol.

    Attributes:
        number: of the record that is edited, from 0.
        due: (gap, number of the record that is scored then), the smallest gap first.
    """

    number: int
    due: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Played:
    """What came of a step: its edits, visual before textual, and the scores of each gap."""

    step: Step
    written: tuple[Written, ...]
    scores: tuple[tuple[int, Score], ...]


def schedule(count: int, gaps: Iterable[int] = GAPS, scored: int | None = None) -> list[Step]:
    """The steps of MemEIC's evaluation (arXiv 2510.25798): at step t record t is edited, then record t - gap is scored.

    Scoring leaves the memory as it is, so that all gaps share one pass over the edits; the paper makes a pass for each.
    A record that fewer than `gap` records follow is not scored at that gap. The paper scores 500 records at every gap,
    for which 600 are edited here.

    Args:
        count: how many records are edited.
        gaps: how many pairs of edits lie between a record's own and its scores.
        scored: only so many records, the first ones, are scored; None for all.
    """
    last = count if scored is None else scored
    due = [[(gap, step - gap) for gap in sorted(set(gaps)) if 0 <= step - gap < last] for step in range(count)]
    return [Step(number, tuple(those)) for number, those in enumerate(due)]


def play(
    session: VisualSession,
    records: Sequence[VisualRecord],
    steps: Iterable[Step],
    before: Mapping[str, Observed],
) -> Iterator[Played]:
    """Make the steps one by one: the visual edit, then the textual one if there is one, then the scores that are due.

    Args:
        session: with the edits of all earlier steps.
        records: all that the steps number.
        steps: see `schedule`.
        before: by id of a record, what the bare host said of its questions.
    """
    for step in steps:
        record = records[step.number]
        changes = [("visual", record.visual)] + ([("textual", record.textual)] if record.textual else [])
        written = [session.edit(f"{record.id} {kind}", change) for kind, change in changes]
        scores = [(gap, found) for gap, number in step.due for found in _scores(session, records[number], before)]
        yield Played(step, tuple(written), tuple(scores))


def final(
    session: VisualSession, records: Sequence[VisualRecord], before: Mapping[str, Observed]
) -> Iterator[list[Score]]:
    """The scores of each record after the last edit, whatever lies between."""
    for record in records:
        yield _scores(session, record, before)


def _scores(session: VisualSession, record: VisualRecord, before: Mapping[str, Observed]) -> list[Score]:
    return score(session, record, before[record.id])

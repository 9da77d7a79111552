"""What later edits take from earlier ones."""

import statistics
from collections.abc import Sequence

from benchmarks.metrics.base import Score

NAME = "forgetting"


def forgetting(early: Sequence[Score], late: Sequence[Score]) -> list[Score]:
    """Score right after each edit less the score at the end, by record; negative where the edit got better.

    As in continual learning (Chaudhry et al., arXiv 1801.10112, definition 3), with one look right after the edit
    instead of the best of all looks.

    Args:
        early: scores of records right after their edit.
        late: scores of the same metric after the last edit.

    Returns:
        One score for each record that has both, in the order of `late`; several scores of a record and kind are
        averaged.
    """
    first, last = _by_record(early), _by_record(late)
    return [
        Score(NAME, kind, record, first[metric, kind, record] - value)
        for (metric, kind, record), value in last.items()
        if record and (metric, kind, record) in first
    ]


def _by_record(scores: Sequence[Score]) -> dict[tuple[str, str, str], float]:
    values: dict[tuple[str, str, str], list[float]] = {}
    for score in scores:
        values.setdefault((score.metric, score.kind, score.record), []).append(score.value)
    return {key: statistics.fmean(found) for key, found in values.items()}

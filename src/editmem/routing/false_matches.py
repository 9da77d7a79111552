"""How many other questions about an edit's subject are taken for it, by the threshold of the router on questions.

Measured by `scripts/question_encoder/measure.py` on 2,218 hand-written questions of relations that the encoder was not
taught, each put to an edit of another relation of the same kind of subject. One table serves all hosts, since no state
of theirs is looked at.
"""

import numpy as np

THRESHOLDS = (0.30, 0.35, 0.40, 0.44, 0.46, 0.48, 0.50, 0.52, 0.54, 0.56, 0.58, 0.60, 0.65, 0.70, 0.75)
RATES = (0.375, 0.257, 0.154, 0.095, 0.076, 0.057, 0.043, 0.031, 0.024, 0.019, 0.016, 0.011, 0.0045, 0.0009, 0.0005)


def rate_at(threshold: float) -> float:
    """The share of other questions that match; outside the table that of its end."""
    return float(np.interp(threshold, THRESHOLDS, RATES))


def threshold_at(rate: float) -> float:
    """The lowest threshold at which no more than this share matches; outside the table that of its end."""
    return float(np.interp(rate, RATES[::-1], THRESHOLDS[::-1]))

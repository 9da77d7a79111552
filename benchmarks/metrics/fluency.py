"""Does generated text repeat itself?"""

import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence

from benchmarks.metrics.base import Metric, Score
from benchmarks.records import Record
from benchmarks.session import Session

TOKENS = 100
PROMPTS = 32
WEIGHTS = {2: 2 / 3, 3: 4 / 3}  # of n-grams, as in ROME's code


class Fluency(Metric):
    """Weighted entropy of 2- and 3-grams of text generated after edited prompts, in bits; "unedited" is the model's.

    Meng et al., arXiv 2202.05262, section 3.4 (GE): the mean of 2/3 of the bigrams' and 4/3 of the trigrams' entropy.
    Here the text is 100 tokens, greedy, so that the figure can be repeated, after the first 32 prompts, and its words
    are split at white space and punctuation; ROME samples. Compare within a model only.
    """

    name, group = "fluency", "entropy"

    def before(self, session: Session, records: Sequence[Record]) -> list[float]:
        """The entropies of the unedited model."""
        return _entropies(session, records)

    def after(self, session: Session, records: Sequence[Record], before: Sequence[float]) -> list[Score]:
        asked = records[:PROMPTS]
        edited = zip(asked, _entropies(session, asked), strict=True)
        unedited = zip(asked, before, strict=True)
        return [Score(self.name, "", record.id, value) for record, value in edited] + [
            Score(self.name, "unedited", record.id, value) for record, value in unedited
        ]


def _entropies(session: Session, records: Sequence[Record]) -> list[float]:
    return [entropy(text) for text in session.answers([record.prompt for record in records[:PROMPTS]], TOKENS)]


def entropy(text: str) -> float:
    """Weighted mean of the entropies of a text's bigrams and trigrams, in bits; 0 for less than two words."""
    words = re.findall(r"\w+|[^\w\s]", text)
    return statistics.fmean(weight * _entropy(words, n) for n, weight in WEIGHTS.items())


def _entropy(words: Sequence[str], n: int) -> float:
    counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    total = counts.total()
    return -sum(count / total * math.log2(count / total) for count in counts.values()) if total else 0.0

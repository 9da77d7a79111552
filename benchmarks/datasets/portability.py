"""Questions that follow from an edit, as several data sets write them."""

from benchmarks.datasets.rows import Row
from benchmarks.records import Probe


def one_hop(row: Row) -> tuple[Probe, ...]:
    """A fact about the new answer, asked by way of the subject: Yao et al., arXiv 2305.13172, section 5.

    Its files add `portability` with "New Question" and "New Answer" to records of ZsRE and CounterFact.
    """
    if "portability" not in row:
        return ()
    hop = row.row("portability")
    return (Probe(hop.text("New Question"), "one hop", hop.aliases("New Answer")),)


def by_category(row: Row, name: str) -> tuple[Probe, ...]:
    """KnowEdit's questions: `name` holds lists of `prompt` and `ground_truth` under the name of their category."""
    if name not in row:
        return ()
    categories = row.row(name)
    return tuple(
        Probe(question.text("prompt"), category, question.aliases("ground_truth"))
        for category in categories.fields
        for question in categories.rows(category)
    )

"""Metrics, each with its definition and source; figures of different groups are never put in one column."""

from benchmarks.metrics import questions
from benchmarks.metrics.base import Metric, Score
from benchmarks.metrics.exact import Exact
from benchmarks.metrics.fluency import Fluency
from benchmarks.metrics.forgetting import forgetting
from benchmarks.metrics.general import GeneralAbility
from benchmarks.metrics.overhead import DecodeOverhead
from benchmarks.metrics.passages import OodGeneralisation
from benchmarks.metrics.perplexity import MedianPerplexity, Nll, Perplexity
from benchmarks.metrics.questions import in_force
from benchmarks.metrics.rome import Magnitude, Success, neighbours
from benchmarks.metrics.teacher_forced import TokenAccuracy, TokenAgreement
from benchmarks.metrics.unchanged import Unchanged
from benchmarks.metrics.wild import AFTER, Wild, WildUnchanged, begun, contained, exact, repeats

__all__ = ["METRICS", "Metric", "Score", "forgetting", "in_force"]

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Wild("wild reliability", questions.edits, exact),
        Wild("wild generality", questions.rephrasings, exact),
        WildUnchanged(),
        Wild("wild reliability, begun", questions.edits, begun),
        Wild("wild generality, begun", questions.rephrasings, begun),
        Wild("wild reliability, contained", questions.edits, contained),
        Wild("wild generality, contained", questions.rephrasings, contained),
        Wild("wild reliability, first 100", questions.edits, exact, first=100),
        Wild("repeats itself", questions.edits, repeats, AFTER, "lower"),
        Exact("reliability", questions.edits),
        Exact("generality", questions.rephrasings),
        Unchanged(),
        Exact("portability", questions.portability),
        TokenAccuracy("token reliability", questions.edits),
        TokenAccuracy("token generality", questions.rephrasings),
        TokenAgreement(),
        TokenAccuracy("token portability", questions.portability),
        Success("edit success", questions.edits),
        Success("paraphrase success", questions.rephrasings),
        Success("neighbourhood success", neighbours, wanted="true"),
        Magnitude("edit magnitude", questions.edits),
        Magnitude("paraphrase magnitude", questions.rephrasings),
        Magnitude("neighbourhood magnitude", neighbours, wanted="true"),
        Nll(),
        Perplexity(),
        MedianPerplexity(),
        OodGeneralisation(),
        Fluency(),
        DecodeOverhead(),
        GeneralAbility(),
    )
}

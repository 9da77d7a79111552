"""What is shown while runs go on: a bar for all of them, and a line with the running scores of each."""

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.folder import read_progress
from benchmarks.spec import RunSpec
from benchmarks.sweep import Outcome

SHOWN = ("reliability", "generality", "locality", "VisRel", "TextRel", "CompRel")
PERIOD = 1.0  # seconds between two looks at the folders


def until_done(runs: Sequence[RunSpec], out: Path, ends: Iterable[Outcome], console: Console) -> list[Outcome]:
    """Show progress until every run has ended.

    Args:
        runs: all that are to be made.
        out: the folder of results; how far each run is is read from there.
        ends: outcomes, as runs end.
        console: where to show it.

    Returns:
        Those that failed.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, TextColumn("{task.fields[scores]}"), console=console) as bars:
        total = bars.add_task("edits", total=sum(spec.sizes[-1] for spec in runs), scores="")
        stop = threading.Event()
        looker = threading.Thread(target=_look, args=(bars, total, runs, out, stop), daemon=True)
        looker.start()
        failed = [outcome for outcome in ends if _tell(outcome, bars, out)]
        stop.set()
        looker.join()
    return failed


def _tell(outcome: Outcome, bars: Progress, out: Path) -> bool:
    """Say how a run ended; whether it failed."""
    if outcome.error is None:
        scores = read_progress(out / outcome.spec.slug).scores
        bars.console.print(f"{outcome.spec.slug}  {summary(scores)}", markup=False, highlight=False, soft_wrap=True)
    else:
        bars.console.print(f"{outcome.spec.slug}: {outcome.trace}", style="red", markup=False, highlight=False)
    return outcome.error is not None


def _look(bars: Progress, total: TaskID, runs: Sequence[RunSpec], out: Path, stop: threading.Event) -> None:
    tasks: dict[str, TaskID] = {}
    while True:
        last = stop.wait(PERIOD)
        found = [(spec, read_progress(out / spec.slug)) for spec in runs]
        bars.update(total, completed=sum(progress.edits for _, progress in found))
        for spec, progress in found:
            if progress.finished and spec.slug in tasks:
                bars.remove_task(tasks.pop(spec.slug))
            elif not progress.finished and progress.edits:
                if spec.slug not in tasks:
                    tasks[spec.slug] = bars.add_task(spec.slug, total=spec.sizes[-1], scores="")
                bars.update(tasks[spec.slug], completed=progress.edits, scores=summary(progress.scores))
        if last:
            return


def summary(scores: dict[str, float]) -> str:
    """The best-known means on one line, in hundredths."""
    return "  ".join(f"{name} {scores[name]:.2f}" for name in SHOWN if name in scores)

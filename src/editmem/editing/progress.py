"""Bars for what takes a while."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tqdm.auto import tqdm

Progress = bool | Callable[[int, int], None] | None
_SLOW = 64  # edits from which a bar is shown
_PATIENCE = 2.0  # seconds after which one is shown for what comes before the edits


@contextmanager
def bar(progress: Progress, total: int, label: str) -> Iterator[Callable[[int], None]]:
    """What to call with the number of edits that were done; `progress` as `Editor.edit` takes it."""
    with ExitStack() as stack:
        if callable(progress):
            done = 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                progress(done, total)

            yield advance
        else:
            hidden = _hidden(progress) if total >= _SLOW or progress is not None else True
            yield stack.enter_context(tqdm(total=total, desc=label, unit="edit", disable=hidden)).update


@contextmanager
def preparing(progress: Progress, total: int, label: str) -> Iterator[Callable[[int], None]]:
    """What to call with the number of prompts that were read before the first edit; shown if that takes long.

    A function that is to hear of `progress` hears of edits only.
    """
    hidden = True if callable(progress) else _hidden(progress)
    delay = 0.0 if progress is True else _PATIENCE
    with tqdm(total=total, desc=label, unit="prompt", disable=hidden, delay=delay, leave=False) as shown:
        yield shown.update


def _hidden(progress: bool | None) -> bool | None:
    """As tqdm takes it: what was asked for; where nothing was, there is a bar where someone looks, not in a log."""
    return None if progress is None else not progress

"""Bars for what takes a while."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tqdm.auto import tqdm

Progress = bool | Callable[[int, int], None] | None
_SLOW = 64  # steps from which a bar is shown


@contextmanager
def bar(progress: Progress, total: int, label: str) -> Iterator[Callable[[int], None]]:
    """What to call with the number of steps that were done; `progress` as `Editor.edit` takes it."""
    with ExitStack() as stack:
        if callable(progress):
            done = 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                progress(done, total)

            yield advance
        else:
            shown = total >= _SLOW if progress is None else progress
            yield stack.enter_context(tqdm(total=total, desc=label, unit="edit", disable=not shown)).update

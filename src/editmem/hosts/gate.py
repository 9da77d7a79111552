"""Who may run a host, and who may change what is on it, where several threads do."""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from editmem.errors import EditMemError


class _Own(threading.local):
    """What a thread is in the middle of: depths of nested blocks."""

    running = 0
    changing = 0


class Gate:
    """The lock of one host.

    Forwards and generations run side by side; a change waits until those of other threads are done, and new ones
    wait for it. Changes are prepared one after the other, beside forwards that run. Copies get a gate of their own.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._running = 0
        self._changing = False
        self._editing = threading.Lock()
        self._editor: int | None = None
        self._own = _Own()

    def __deepcopy__(self, memo: dict) -> "Gate":
        return Gate()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around a forward or a generation: nothing changes meanwhile. Nests, also inside `changing`."""
        own = self._own
        if own.running or own.changing:
            yield
            return
        with self._condition:
            self._condition.wait_for(lambda: not self._changing)
            self._running += 1
            own.running = 1
        try:
            yield
        finally:
            with self._condition:
                own.running = 0
                self._running -= 1
                self._condition.notify_all()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around a change that forwards are not to see half of: no other thread is in `running`. Nests.

        Raises:
            EditMemError: in a thread that is in `running` itself.
        """
        own = self._own
        self._check_outside()
        if own.changing:
            yield
            return
        with self._condition:
            self._condition.wait_for(lambda: not self._changing)
            self._changing = True
            own.changing = 1
        try:
            with self._condition:
                self._condition.wait_for(lambda: not self._running)
            yield
        finally:
            with self._condition:
                own.changing = 0
                self._changing = False
                self._condition.notify_all()

    @contextmanager
    def editing(self) -> Iterator[None]:
        """Around a whole call that changes or saves edits: one at a time.

        Raises:
            EditMemError: inside of a generation, a forward or another such call of the same thread.
        """
        self._check_outside()
        if self._editor == threading.get_ident():
            raise EditMemError(
                "edits cannot be changed or saved while the same thread is changing them, as in a progress callback; "
                "do it when that call has returned"
            )
        with self._editing:
            self._editor = threading.get_ident()
            try:
                yield
            finally:
                self._editor = None

    def _check_outside(self) -> None:
        if self._own.running:
            raise EditMemError(
                "edits cannot be changed or saved from inside of a running generation or forward of the same thread, "
                "as in a streamer or a hook; do it when that has returned, or in another thread"
            )


class Together:
    """A state that several threads may be in at once: the first to come enters it, the last to go leaves it.

    Args:
        enter: enters it, and returns what leaves it.
    """

    def __init__(self, enter: Callable[[], Callable[[], None]]) -> None:
        self._enter = enter
        self._lock = threading.Lock()
        self._inside = 0
        self._leave: Callable[[], None] = lambda: None

    def __deepcopy__(self, memo: dict) -> "Together":
        return Together(copy.deepcopy(self._enter, memo))

    @contextmanager
    def inside(self) -> Iterator[None]:
        """In the state; nests."""
        with self._lock:
            if not self._inside:
                self._leave = self._enter()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._leave()

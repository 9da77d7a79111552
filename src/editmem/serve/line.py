"""Where requests wait for their turn: without a thread each, so that others are answered meanwhile."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import HTTPException

T = TypeVar("T")


class Line:
    """Calls that are made in threads, a few at a time; the others wait, and so many of them at most.

    Args:
        most: calls that wait or run.
        threads: calls that run.
    """

    def __init__(self, most: int, threads: int = 1) -> None:
        self._most, self._threads = most, threads
        self._inside = 0
        self._limiter: CapacityLimiter | None = None
        self._tasks: set[asyncio.Task] = set()

    async def run(self, call: Callable[[], T]) -> T:
        """What a call returns.

        Raises:
            HTTPException: 503 if too many wait.
        """
        return await self.join(call)

    def join(self, call: Callable[[], T]) -> Awaitable[T]:
        """A call that waits in the line from now on, and is made whether or not anybody awaits it."""
        if self._inside >= self._most:
            raise HTTPException(503, f"{self._inside} requests are waiting already", headers={"retry-after": "5"})
        self._inside += 1
        task = asyncio.ensure_future(self._turn(call))
        self._tasks.add(task)
        task.add_done_callback(self._left)
        return asyncio.shield(task)

    def handler(self, route: Callable[..., T]) -> Callable[..., Awaitable[T]]:
        """A route whose calls wait here."""

        @functools.wraps(route)
        async def waiting(**given: Any) -> T:
            return await self.run(functools.partial(route, **given))

        return waiting

    async def _turn(self, call: Callable[[], T]) -> T:
        if self._limiter is None:
            self._limiter = CapacityLimiter(self._threads)
        return await to_thread.run_sync(call, limiter=self._limiter)

    def _left(self, task: asyncio.Task) -> None:
        self._inside -= 1
        self._tasks.discard(task)

"""Bytes that any number of tasks may hold together, first come, first served."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Allowance:
    """At most `limit` bytes are taken at a time; more than that at once passes alone."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: deque[tuple[int, trio.Event]] = deque()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes while the context is open; waits until they are there."""
        await self._take(size)
        try:
            yield
        finally:
            self.used -= size
            self._grant()

    async def _take(self, size: int) -> None:
        granted = trio.Event()
        self._waiting.append((size, granted))
        self._grant()
        try:
            await granted.wait()
        except trio.Cancelled:
            if granted.is_set():
                self.used -= size
            else:
                self._waiting.remove((size, granted))
            self._grant()
            raise

    def _grant(self) -> None:
        while self._waiting:
            size, granted = self._waiting[0]
            if self.used and self.used + size > self.limit:
                return
            self._waiting.popleft()
            self.used += size
            granted.set()

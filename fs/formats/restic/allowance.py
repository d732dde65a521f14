"""A number of bytes that tasks share: who needs more than is free waits for his turn."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Allowance:
    """At most `limit` bytes are held at once, given in the order of asking."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free = limit
        self._waiting: deque[tuple[int, trio.Event]] = deque()

    @asynccontextmanager
    async def held(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes; more than the limit counts as the whole limit."""
        size = min(size, self.limit)
        await self._take(size)
        try:
            yield
        finally:
            self._give(size)

    async def _take(self, size: int) -> None:
        turn = (size, trio.Event())
        self._waiting.append(turn)
        self._hand_out()
        try:
            await turn[1].wait()
        except trio.Cancelled:
            if turn[1].is_set():  # given in the same moment
                self._give(size)
            else:
                self._waiting.remove(turn)
                self._hand_out()
            raise

    def _give(self, size: int) -> None:
        self._free += size
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, event = self._waiting.popleft()
            self._free -= size
            event.set()

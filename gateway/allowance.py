"""Bytes that any number of tasks may hold together, in lines that take turns."""

from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio


@dataclass(slots=True, eq=False)
class _Line:
    """Who waits in one line, first come, first served, and how far it has got."""

    served: int  # bytes, counted from where the line in front was when this one began
    waiting: deque[tuple[int, trio.Event]] = field(default_factory=deque)


class Allowance:
    """At most `limit` bytes are taken at a time; more than that at once passes alone.

    The lines are served alike, byte for byte: who has much to take keeps no other line waiting
    for all of it. Nobody passes by whose turn it is, so the largest is served as well.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._lines: dict[Hashable, _Line] = {}
        self._level = 0  # how far the line had got that was served last

    @asynccontextmanager
    async def taken(self, size: int, line: Hashable = None) -> AsyncIterator[None]:
        """Hold `size` bytes while the context is open; waits in `line` until they are there."""
        await self._take(size, line)
        try:
            yield
        finally:
            self.used -= size
            self._grant()

    async def _take(self, size: int, name: Hashable) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        granted = trio.Event()
        line = self._lines.setdefault(name, _Line(self._level))
        line.waiting.append((size, granted))
        self._grant()
        if granted.is_set():
            return  # a turn of trio's loop costs more than all the rest
        try:
            await granted.wait()
        except trio.Cancelled:
            if granted.is_set():
                self.used -= size
            else:
                line.waiting.remove((size, granted))
            self._grant()
            raise

    def _grant(self) -> None:
        while lines := [line for line in self._lines.values() if line.waiting]:
            line = min(lines, key=lambda line: max(line.served, self._level))
            size, granted = line.waiting[0]
            if self.used and self.used + size > self.limit:
                return
            line.waiting.popleft()
            self._level = max(line.served, self._level)
            line.served = self._level + size
            self.used += size
            granted.set()
            self._forget_idle()

    def _forget_idle(self) -> None:
        idle = [
            name
            for name, line in self._lines.items()
            if not line.waiting and line.served <= self._level
        ]
        for name in idle:
            del self._lines[name]

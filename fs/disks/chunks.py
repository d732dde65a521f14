"""Chunks of disk images that were decoded: each once for all who want it, the last ones kept."""

from collections.abc import Awaitable, Callable, Hashable

import trio
from cachetools import LRUCache

from backgate.gateway.source import Data

AT_ONCE = 24  # chunks fetched and decoded together; each takes 4 MiB for about 50 ms


class Chunks:
    """The chunks of all disks of a format, which together hold `limit` bytes when nobody reads."""

    def __init__(self, limit: int) -> None:
        self._kept: LRUCache[Hashable, Data] = LRUCache(limit, getsizeof=len)
        self._due: dict[Hashable, trio.Event] = {}
        self._turns = trio.CapacityLimiter(AT_ONCE)

    async def chunk(self, identity: Hashable, make: Callable[[], Awaitable[Data]]) -> Data:
        """Return the chunk of that identity, made by `make` unless it is at hand.

        Raises what `make` raises, to each who wants it.
        """
        while True:
            kept = self._kept.get(identity)
            if kept is not None:
                await trio.lowlevel.checkpoint()
                return kept
            if identity not in self._due:
                break
            await self._due[identity].wait()  # it may have failed: then we try ourselves
        ended = self._due[identity] = trio.Event()
        try:
            async with self._turns:
                made = await make()
            if len(made) <= self._kept.maxsize:
                self._kept[identity] = made
            return made
        finally:
            del self._due[identity]
            ended.set()

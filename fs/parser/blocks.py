"""Blocks of the disks in memory, in front of their sources, each fetched once at a time.

What a parser and small files ask for lies close together: a block of 1 MiB, which is also what most
backups are stored in, answers many of their reads with one request to the store.
"""

from collections.abc import Sequence

import trio
from cachetools import LRUCache

from backgate.gateway.errors import Damaged
from backgate.gateway.source import Source

BLOCK = 1 << 20  # bytes
RUN_MAX = 8  # blocks in one request: a file that is decoded is asked for a block at a time


class Blocks:
    """The last blocks that were read of `sources`, which may grow."""

    def __init__(self, where: str, sources: Sequence[Source], limit: int) -> None:
        """Keep up to `limit` bytes; `where` is what messages call it all."""
        self._where, self._sources = where, sources
        self._kept: LRUCache[tuple[int, int], memoryview] = LRUCache(limit, getsizeof=len)
        self._due: dict[tuple[int, int], trio.Event] = {}  # set once its read has ended
        self._next: dict[int, tuple[int, int]] = {}  # by source: block behind the last run, length

    async def read(self, number: int, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes of source `number`; `StoreError`, `Damaged`."""
        stop = offset + length
        pieces: list[memoryview] = []
        while offset < stop:
            index = offset // BLOCK
            block = await self._block(number, index, stop)
            begin = offset - index * BLOCK
            pieces.append(block[begin : begin + stop - offset])
            if not pieces[-1]:
                raise Damaged(self._where, offset, "a disk ends here, earlier than it says")
            offset += len(pieces[-1])
        return b"".join(pieces)

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()

    async def _block(self, number: int, index: int, stop: int) -> memoryview:
        while True:
            block = self._kept.get((number, index))
            if block is not None:
                return block
            due = self._due.get((number, index))
            if due is None:
                return await self._fetch(number, index, stop)
            await due.wait()  # that read may have failed: then we try ourselves

    async def _fetch(self, number: int, index: int, stop: int) -> memoryview:
        """Read a block, with those behind it that are wanted, missing and on nobody's way."""
        last = index + 1
        stop = max(
            stop, min((index + self._run(number, index)) * BLOCK, self._sources[number].size)
        )
        while (
            last * BLOCK < stop
            and (number, last) not in self._kept
            and (number, last) not in self._due
        ):
            last += 1
        self._next[number] = (last, last - index)
        ended = trio.Event()
        claimed = dict.fromkeys(((number, at) for at in range(index, last)), ended)
        self._due |= claimed
        try:
            data = await self._sources[number].read_at(index * BLOCK, (last - index) * BLOCK)
            view = memoryview(data)
            for at in range(0, len(view), BLOCK):  # a slice alone would keep all of the run
                alone = memoryview(bytes(view[at : at + BLOCK]))
                self._kept[number, index + at // BLOCK] = alone
            return view[:BLOCK]
        finally:
            for key in claimed:
                del self._due[key]
            ended.set()

    def _run(self, number: int, index: int) -> int:
        """Return how many blocks are worth fetching together: more for who reads on in a row."""
        behind, length = self._next.get(number, (0, 0))
        return min(2 * length, RUN_MAX) if behind == index and length else 1

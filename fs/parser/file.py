"""A file inside a disk as a `Source`: its bytes flow past the worker, from where they lie.

The worker says where (extents); only what the file system encodes comes through it. A read made of
many pieces fetches them together, and short pieces come from the blocks that are at hand anyway.
"""

from bisect import bisect_right
from collections.abc import Sequence

import trio

from backgate.fs.nurseries import open_nursery
from backgate.fs.parser.blocks import BLOCK
from backgate.fs.parser.parser import Extent, Parser
from backgate.fs.volume import ENCODED, HOLE
from backgate.gateway.errors import Damaged
from backgate.gateway.source import Data

STRETCH = 1 << 30  # bytes of a file whose extents are asked for together
KEPT = 50_000  # extents of one open file
AT_ONCE = 8  # pieces of one read that are fetched at once
SHORT = BLOCK // 4  # bytes; a longer piece is worth a request of its own


class ParsedFile:
    """A file of `size` bytes on a volume; with None for `file`, the volume itself."""

    def __init__(self, parser: Parser, volume: int, file: bytes | None, size: int) -> None:
        self.size = size
        self._parser, self._volume, self._file = parser, volume, file
        self._starts: list[int] = []  # of the extents that are known, ascending
        self._extents: list[Extent] = []
        self._asking = trio.Lock()

    async def read_at(self, offset: int, length: int) -> Data:
        """Return `length` bytes at `offset`; `Damaged`, `StoreError`."""
        await trio.lowlevel.checkpoint()
        stop = min(offset + length, self.size)
        pieces: list[Extent] = []
        at = offset
        while at < stop:
            piece = await self._piece(at, stop)
            pieces.append(piece)
            at += piece[0]
        if len(pieces) == 1:
            return await self._read(offset, pieces[0])
        return await self._read_all(offset, pieces)

    async def _read_all(self, offset: int, pieces: Sequence[Extent]) -> Data:
        found: list[Data] = [b""] * len(pieces)
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def read(number: int, at: int, piece: Extent) -> None:
            async with limiter:
                found[number] = await self._read(at, piece)

        async with open_nursery() as nursery:
            for number, piece in enumerate(pieces):
                nursery.start_soon(read, number, offset, piece)
                offset += piece[0]
        return b"".join(found)

    async def _read(self, at: int, piece: Extent) -> Data:
        """Return the bytes of one piece, which is at `at` in the file."""
        length, disk, offset = piece
        if disk == HOLE:
            return bytes(length)
        if disk == ENCODED:
            return await self._decoded(at, length)
        if length < SHORT:
            return await self._parser.blocks.read(disk, offset, length)
        data = await self._parser.sources[disk].read_at(offset, length)
        if len(data) != length:
            raise Damaged(
                self._parser.where, offset + len(data), "a disk ends earlier than it says"
            )
        return data

    async def _decoded(self, at: int, length: int) -> bytes:
        parts = []
        while length > 0:
            part = await self._parser.read(self._volume, self._file, at, length)
            if not part:
                raise Damaged(self._parser.where, at, "a file ends earlier than it says")
            parts.append(part)
            at, length = at + len(part), length - len(part)
        return b"".join(parts)

    async def _piece(self, at: int, stop: int) -> Extent:
        """Return where the byte `at` lies, with those that follow it there, up to `stop`."""
        found = self._known(at, stop)
        if found is None:
            async with self._asking:
                found = self._known(at, stop)
                if found is None:
                    await self._learn(at)
                    found = self._known(at, stop)
        if found is None:
            raise Damaged(self._parser.where, at, "nothing is known of this part of a file")
        return found

    def _known(self, at: int, stop: int) -> Extent | None:
        number = bisect_right(self._starts, at) - 1
        if number < 0:
            return None
        start, (length, disk, offset) = self._starts[number], self._extents[number]
        if at >= start + length:
            return None
        skipped = at - start
        length = min(start + length, stop) - at
        return length, disk, offset + skipped if disk >= 0 else 0

    async def _learn(self, at: int) -> None:
        length = min(STRETCH, self.size - at)
        extents = await self._parser.extents(self._volume, self._file, at, length)
        if len(self._starts) + len(extents) > KEPT:
            self._starts, self._extents = [], []
        number = bisect_right(self._starts, at)
        stop = self._starts[number] if number < len(self._starts) else self.size
        starts, news = [], []
        for extent in extents:
            if at >= stop:
                break
            starts.append(at)
            news.append((min(extent[0], stop - at), *extent[1:]))
            at += extent[0]
        self._starts[number:number] = starts
        self._extents[number:number] = news

"""One disk of an XVA as a source: chunks where the archive has them, zeros elsewhere."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from backgate.fs.disks.chunks import Chunks
from backgate.fs.formats.xen_orchestra.ova import OvaDisk
from backgate.fs.formats.xen_orchestra.xva_index import Chunk, XvaIndex, digest_of
from backgate.fs.nurseries import open_nursery
from backgate.gateway.errors import Damaged
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data, Source
from backgate.gateway.units import KIB, MIB

GAP = 64 * KIB  # bytes between two chunks that are cheaper to read than to ask twice
LONGEST = 16 * MIB  # bytes read together


@dataclass(frozen=True, slots=True)
class Unfolded:
    """An archive whose index is there."""

    index: XvaIndex
    source: Source  # the bytes of the tar


class XvaDisk:
    """The source; `unfolded` gives the index, and may take as long as reading the whole archive."""

    def __init__(
        self,
        info: ObjectInfo,
        disk: OvaDisk,
        unfolded: Callable[[], Awaitable[Unfolded]],
        chunks: Chunks,
    ) -> None:
        self.size = disk.size
        self._info, self._disk, self._unfolded, self._chunks = info, disk, unfolded, chunks

    async def read_at(self, offset: int, length: int) -> Data:
        """Return `length` bytes at `offset`, fewer only where the disk ends.

        Raises `Damaged` when the archive or a chunk is not what its checksum says, `StoreError`.
        """
        stop = min(offset + length, self.size)
        if offset >= stop:
            await trio.lowlevel.checkpoint()
            return b""
        unfolded = await self._unfolded()
        found: dict[int, Data] = {}

        async def fetch(group: Sequence[Chunk]) -> None:
            found.update(await self._group(group, unfolded))

        async with open_nursery() as nursery:
            for group in _together(unfolded.index.chunks(self._disk.reference, offset, stop)):
                nursery.start_soon(fetch, group)
        return _joined(found, offset, stop)

    async def _group(self, group: Sequence[Chunk], unfolded: Unfolded) -> dict[int, Data]:
        """Return the chunks of a group by their place on the disk."""
        if len(group) > 1:
            return await self._read(group, unfolded)
        (one,) = group

        async def make() -> Data:
            return (await self._read(group, unfolded))[one.start]

        key = (self._info.key, self._info.etag, one.data)
        return {one.start: await self._chunks.chunk(key, make)}

    async def _read(self, group: Sequence[Chunk], unfolded: Unfolded) -> dict[int, Data]:
        begin, end = group[0].data, group[-1].data + group[-1].length
        whole = memoryview(await unfolded.source.read_at(begin, end - begin))
        if len(whole) != end - begin:
            raise Damaged(self._info.key, begin + len(whole), "the archive ends too early")
        found: dict[int, Data] = {}
        for one in group:
            found[one.start] = whole[one.data - begin : one.data - begin + one.length]
        await trio.to_thread.run_sync(self._check, group, found)
        return found

    def _check(self, group: Sequence[Chunk], found: dict[int, Data]) -> None:
        for one in group:
            if one.kind is not None and digest_of(one.kind, found[one.start]) != one.sum:
                raise Damaged(self._info.key, one.data, f"{one.kind} of a chunk is wrong")


def _together(chunks: Sequence[Chunk]) -> list[list[Chunk]]:
    groups: list[list[Chunk]] = []
    for one in chunks:
        if groups:
            first, last = groups[-1][0], groups[-1][-1]
            gap = one.data - last.data - last.length
            if 0 <= gap <= GAP and one.data + one.length - first.data <= LONGEST:
                groups[-1].append(one)
                continue
        groups.append([one])
    return groups


def _joined(found: dict[int, Data], offset: int, stop: int) -> Data:
    """Return `[offset, stop)` of the disk out of chunks by their place, with zeros between."""
    pieces: list[Data] = []
    at = offset
    for start in sorted(found):
        data = memoryview(found[start])
        begin, end = max(start, at), min(start + len(data), stop)
        if begin > at:
            pieces.append(bytes(begin - at))
        pieces.append(data[begin - start : end - start])
        at = end
    if at < stop:
        pieces.append(bytes(stop - at))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)

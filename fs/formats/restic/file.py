"""The bytes of one file of a snapshot: its blobs one after another, the next ones fetched early."""

import hashlib
from array import array
from bisect import bisect_right
from functools import cache

import trio

from backgate.fs.formats.restic.blobs import Blobs
from backgate.fs.formats.restic.documents import ID
from backgate.gateway.errors import Damaged
from backgate.gateway.source import Data
from backgate.gateway.units import KIB, MIB

HOLE = 512 * KIB  # bytes: restic cuts a run of zeros into blobs of this size
ZEROS = bytes(HOLE)
WINDOW_FIRST = 2 * MIB  # bytes fetched ahead of the first sequential read
PARALLEL = MIB  # bytes; who waits for more than that reads ahead by himself
NEAR = MIB  # bytes between two reads that still count as sequential


@cache
def hole_id() -> bytes:
    """Return the id of the blob of zeros, which is never fetched."""
    return hashlib.sha256(ZEROS).digest()


class File:
    """A `Source` over the blobs `ids`; `stops` says where in the file each ends."""

    def __init__(
        self,
        name: str,
        ids: bytes,
        stops: "array[int]",
        blobs: Blobs[Data],
        window_max: int,
    ) -> None:
        self.size = stops[-1] if stops else 0
        self._name, self._ids, self._stops = name, ids, stops
        self._blobs, self._window_max = blobs, window_max
        self._window = 0  # bytes to have ahead of the reader
        self._expected = 0  # where a sequential reader reads next
        self._asked = 0  # the file is fetched up to here, or is being
        self._outstanding = 0  # bytes that others are waiting for

    async def read_at(self, offset: int, length: int) -> Data:
        """Return `length` bytes at `offset`; `Damaged` names the pack at fault."""
        stop = min(offset + length, self.size)
        if offset >= stop:
            await trio.lowlevel.checkpoint()
            return b""
        self._look_ahead(offset, stop)
        self._outstanding += stop - offset
        try:
            return await self._read(offset, stop)
        finally:
            self._outstanding -= stop - offset

    async def _read(self, offset: int, stop: int) -> Data:
        first, last = bisect_right(self._stops, offset), bisect_right(self._stops, stop - 1)
        numbers = range(first, last + 1)
        ids = [self._id(number) for number in numbers]
        found = iter(await self._blobs.get([one for one in ids if one != hole_id()]))
        pieces: list[Data] = []
        for number, blob in zip(numbers, ids, strict=True):
            data = ZEROS if blob == hole_id() else next(found)
            start, end = self._start(number), self._stops[number]
            if len(data) != end - start:
                reason = f"blob {blob.hex()[:16]} has {len(data)} bytes, the index said otherwise"
                raise Damaged(self._name, start, reason)
            pieces.append(memoryview(data)[max(0, offset - start) : stop - start])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _id(self, number: int) -> bytes:
        return self._ids[number * ID : number * ID + ID]

    def _start(self, number: int) -> int:
        return self._stops[number - 1] if number else 0

    def _look_ahead(self, offset: int, stop: int) -> None:
        if offset and abs(offset - self._expected) > NEAR:
            self._window, self._asked, self._expected = 0, 0, stop
            return
        self._expected = max(self._expected, stop)
        if self._outstanding >= PARALLEL:
            return
        self._window = min(max(WINDOW_FIRST, 2 * self._window), self._window_max)
        start, target = max(stop, self._asked), min(stop + self._window, self.size)
        if start >= target or (target < self.size and target - start < self._window // 2):
            return
        first, last = bisect_right(self._stops, start), bisect_right(self._stops, target - 1)
        self._asked = self._stops[last]
        ids = [self._id(number) for number in range(first, last + 1)]
        self._blobs.want(one for one in ids if one != hole_id())

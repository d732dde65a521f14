"""The one currency of reading: a size, and `read_at` for any number of tasks.

An object, a member of an archive, a disk, a file inside a disk: each is a `Source` over a `Source`.
There is no position, so nothing needs a lock.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import trio

Data: TypeAlias = bytes | memoryview  # what a read gives; a memoryview spares a copy


@runtime_checkable
class Source(Protocol):
    """Bytes of a known size, readable at any offset by any number of tasks at once."""

    @property
    def size(self) -> int:
        """The length in bytes; it never changes."""

    async def read_at(self, offset: int, length: int) -> Data:
        """Return `length` bytes at `offset`, fewer only where the source ends.

        Raises `StoreError` when the bytes cannot be had before the deadline and `Damaged` when
        they do
        not hold together.
        """


class Bytes:
    """A source over bytes in memory."""

    def __init__(self, data: Data) -> None:
        self._data = memoryview(data)
        self.size = len(self._data)

    async def read_at(self, offset: int, length: int) -> Data:
        await trio.lowlevel.checkpoint()
        return self._data[offset : offset + length]


class Zeros:
    """A source of `size` zero bytes: a hole."""

    def __init__(self, size: int) -> None:
        self.size = size

    async def read_at(self, offset: int, length: int) -> Data:
        await trio.lowlevel.checkpoint()
        return bytes(max(0, min(length, self.size - offset)))


class Window:
    """The `size` bytes of `source` that begin at `start`."""

    def __init__(self, source: Source, start: int, size: int) -> None:
        self._source, self._start, self.size = source, start, size

    async def read_at(self, offset: int, length: int) -> Data:
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        return await self._source.read_at(self._start + offset, length)


class Concat:
    """Sources one after another."""

    def __init__(self, parts: Sequence[Source]) -> None:
        self._parts = [part for part in parts if part.size]
        self._stops: list[int] = []  # where each part ends
        self.size = 0
        for part in self._parts:
            self.size += part.size
            self._stops.append(self.size)

    async def read_at(self, offset: int, length: int) -> Data:
        stop = min(offset + length, self.size)
        number = bisect_right(self._stops, offset)
        pieces: list[Data] = []
        while offset < stop:
            part, end = self._parts[number], self._stops[number]
            wanted = min(stop, end) - offset
            pieces.append(await part.read_at(offset - (end - part.size), wanted))
            offset += wanted
            number += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

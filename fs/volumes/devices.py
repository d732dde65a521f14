"""Devices made of devices: a stretch, stretches one after another, and blocks laid over another."""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from backgate.fs.volume import ENCODED, HOLE, Device, Extent


class Stretch:
    """The `size` bytes of `device` that begin at `start`: a partition.

    What a table claims beyond the end of the device is not there: the stretch ends with it.
    """

    def __init__(self, device: Device, start: int, size: int) -> None:
        self._device, self._start = device, start
        self.size = max(0, min(size, device.size - start))

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        return self._device.read_at(self._start + offset, length) if length > 0 else b""

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        length = min(length, self.size - offset)
        if length > 0:
            yield from self._device.extents(self._start + offset, length)


class Empty:
    """`size` zero bytes that are stored nowhere."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read_at(self, offset: int, length: int) -> bytes:
        return bytes(max(0, min(length, self.size - offset)))

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        length = min(length, self.size - offset)
        if length > 0:
            yield Extent(length, HOLE, 0)


class Chain:
    """Devices one after another: a linear logical volume, a striped one in small pieces."""

    def __init__(self, parts: Sequence[Device]) -> None:
        self._parts = [part for part in parts if part.size]
        self._stops: list[int] = []  # where each part ends
        self.size = 0
        for part in self._parts:
            self.size += part.size
            self._stops.append(self.size)

    def read_at(self, offset: int, length: int) -> bytes:
        pieces = [part.read_at(at, wanted) for part, at, wanted in self._pieces(offset, length)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for part, at, wanted in self._pieces(offset, length):
            yield from part.extents(at, wanted)

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[Device, int, int]]:
        stop = min(offset + length, self.size)
        number = bisect_right(self._stops, offset)
        while offset < stop:
            part, end = self._parts[number], self._stops[number]
            wanted = min(stop, end) - offset
            yield part, offset - (end - part.size), wanted
            offset += wanted
            number += 1


class Overlay:
    """`device` with some of its blocks replaced by what a journal says of them."""

    def __init__(self, device: Device, block_size: int, blocks: Mapping[int, bytes]) -> None:
        self._device, self._block_size, self._blocks = device, block_size, blocks
        self._numbers = array("Q", blocks)  # there may be millions
        if any(one > following for one, following in pairwise(self._numbers)):
            self._numbers = array("Q", sorted(blocks))
        self.size = device.size

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        data = self._device.read_at(offset, length)
        stop = offset + len(data)
        touched = self._touched(offset, stop)
        if not touched:
            return data
        patched = bytearray(data)
        for number in touched:
            start = number * self._block_size
            first, last = max(start, offset), min(start + self._block_size, stop)
            patched[first - offset : last - offset] = self._blocks[number][
                first - start : last - start
            ]
        return bytes(patched)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        stop = min(offset + length, self.size)
        for number in self._touched(offset, stop):
            first = max(number * self._block_size, offset)
            last = min((number + 1) * self._block_size, stop)
            if offset < first:
                yield from self._device.extents(offset, first - offset)
            yield Extent(last - first, ENCODED, 0)
            offset = last
        if offset < stop:
            yield from self._device.extents(offset, stop - offset)

    def _touched(self, start: int, stop: int) -> Sequence[int]:
        first = bisect_right(self._numbers, start // self._block_size - 1)
        last = bisect_right(self._numbers, (stop - 1) // self._block_size)
        return self._numbers[first:last]

"""Where the data of a sparse file lies: GNU's four ways to say it.

Old GNU: pairs of numbers in the header and in blocks behind it, 21 to a block. pax 0.0: repeated
records; 0.1: one record `offset,length,...`; 1.0: decimal lines in front of the data. GNU tar
manual, "Storing Sparse Files".
"""

import re
from array import array
from collections.abc import Iterable, Iterator

from backgate.fs.formats.tar.archive import Forward
from backgate.fs.formats.tar.header import (
    BLOCK,
    IS_EXTENDED_AT,
    SPARSE_AT,
    SPARSE_COUNT,
    SPARSE_ENTRY,
    BadHeader,
    number,
    padded,
)

EXTENTS_MAX = 2_000_000  # of one file: 32 MB while it is indexed
_PER_BLOCK, _BLOCK_IS_EXTENDED_AT = 21, 504
_LINE_MAX = 21  # bytes: 20 digits of 2^64, and the newline
_LINE = re.compile(rb"([0-9]{1,20})\n")


class Extents:
    """Ascending pieces of a file (start, length) that have data; the rest is zeros."""

    def __init__(self, pairs: Iterable[tuple[int, int]], size: int, stored: int) -> None:
        """Check that the pieces lie in a file of `size` and have `stored` bytes; `BadHeader`."""
        self._numbers = array("Q")
        end = total = 0
        for start, length in pairs:
            if start < end or start + length > size or len(self._numbers) >= 2 * EXTENTS_MAX:
                raise BadHeader(f"sparse map: a piece of {length} bytes at {start} has no place")
            end = start + length
            total += length
            if length:
                self._numbers.extend((start, length))
        if total > stored:
            raise BadHeader(f"sparse map: {total} bytes in pieces, but {stored} are stored")

    def __iter__(self) -> Iterator[tuple[int, int]]:
        numbers = iter(self._numbers)
        return zip(numbers, numbers, strict=True)


def old_gnu_pairs(archive: Forward, block: bytes, at: int) -> tuple[list[tuple[int, int]], int]:
    """Return the pairs of the header `block`, and of the blocks at `at`; and where those end."""
    pairs = list(_pairs_in(block, SPARSE_AT, SPARSE_COUNT))
    is_extended = block[IS_EXTENDED_AT]
    while is_extended:
        if len(pairs) > EXTENTS_MAX:
            raise BadHeader("sparse map: too many pieces")
        more = archive.read_at(at, BLOCK)
        pairs += _pairs_in(more, 0, _PER_BLOCK)
        is_extended = more[_BLOCK_IS_EXTENDED_AT]
        at += BLOCK
    return pairs, at


def pax_pairs(values: Iterable[bytes]) -> list[tuple[int, int]]:
    """Return the pairs of a version 0.0 or 0.1 map: offset and length in turn."""
    numbers = []
    for value in values:
        if not value.isdigit() or len(value) >= _LINE_MAX:
            raise BadHeader(f"sparse map: not a number: {value[:40]!r}")
        numbers.append(int(value))
    if len(numbers) % 2:
        raise BadHeader("sparse map: an odd count of numbers")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def data_pairs(archive: Forward, at: int, stop: int) -> tuple[list[tuple[int, int]], int]:
    """Return the pairs of the version 1.0 map at `at`, and where the data behind it begins."""
    lines = _Lines(archive, at, stop)
    count = lines.next()
    if count > EXTENTS_MAX:
        raise BadHeader(f"sparse map: {count} pieces are too many")
    pairs = [(lines.next(), lines.next()) for _ in range(count)]
    return pairs, at + padded(lines.consumed)


class _Lines:
    """Decimal lines of a map that lies in whole blocks."""

    def __init__(self, archive: Forward, at: int, stop: int) -> None:
        self._archive, self._next, self._stop = archive, at, stop
        self._block = b""
        self.consumed = 0  # bytes

    def next(self) -> int:
        if len(self._block) < _LINE_MAX and self._next < self._stop:
            self._block += self._archive.read_at(self._next, BLOCK)
            self._next += BLOCK
        match = _LINE.match(self._block)
        if match is None:
            raise BadHeader(f"sparse map: not a line with a number: {self._block[:21]!r}")
        self._block = self._block[match.end() :]
        self.consumed += match.end()
        return int(match[1])


def _pairs_in(block: bytes, at: int, count: int) -> Iterator[tuple[int, int]]:
    for place in range(at, at + count * SPARSE_ENTRY, SPARSE_ENTRY):
        if not block[place]:
            return  # unused entries are zeros
        half = place + SPARSE_ENTRY // 2
        yield number(block[place:half]), number(block[half : place + SPARSE_ENTRY])

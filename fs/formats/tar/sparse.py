"""Where the data of a sparse file lies: GNU's four ways to say it.

Old GNU: pairs of numbers in the header and in blocks behind it, 21 to a block. pax 0.0: repeated
records; 0.1: one record `offset,length,...`; 1.0: decimal lines in front of the data. GNU tar
manual, "Storing Sparse Files".
"""

import re
from array import array
from collections.abc import Iterable, Iterator
from typing import TypeAlias

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
    possible_size,
)

EXTENTS_MAX = 2_000_000  # of one file: 32 MB while it is indexed
_PER_BLOCK, _BLOCK_IS_EXTENDED_AT = 21, 504
_LINE_MAX = 21  # bytes: 20 digits of 2^64, and the newline
_LINE = re.compile(rb"([0-9]{1,20})\n")
_BETWEEN_COMMAS = re.compile(rb"(?:^|(?<=,))[^,]*")

Numbers: TypeAlias = "array[int]"  # of a map: where a piece begins and its length, in turn


class Extents:
    """Ascending pieces of a file (start, length) that have data; the rest is zeros."""

    def __init__(self, numbers: Numbers, size: int, stored: int) -> None:
        """Check that the pieces lie in a file of `size` and have `stored` bytes; `BadHeader`."""
        self._numbers = numbers
        end = total = 0
        for start, length in _pairs(numbers):
            if start < end or start + length > size:
                raise BadHeader(f"sparse map: a piece of {length} bytes at {start} has no place")
            end = start + length
            total += length
        if total > stored:
            raise BadHeader(f"sparse map: {total} bytes in pieces, but {stored} are stored")

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return (pair for pair in _pairs(self._numbers) if pair[1])


def old_gnu_map(archive: Forward, block: bytes, at: int) -> tuple[Numbers, int]:
    """Return the map of the header `block`, and of the blocks at `at`; and where those end."""
    numbers = _numbers(_entries(block, SPARSE_AT, SPARSE_COUNT))
    is_extended = block[IS_EXTENDED_AT]
    while is_extended:
        more = archive.read_at(at, BLOCK)
        _extend(numbers, _entries(more, 0, _PER_BLOCK))
        is_extended = more[_BLOCK_IS_EXTENDED_AT]
        at += BLOCK
    return numbers, at


def pax_map(values: Iterable[bytes]) -> Numbers:
    """Return a map of version 0.0, of which `values` are the records."""
    return _numbers(map(_decimal, values))


def pax_map_in_one(record: bytes) -> Numbers:
    """Return a map of version 0.1, which is one record; it is never taken apart as a whole."""
    return _numbers(_decimal(match[0]) for match in _BETWEEN_COMMAS.finditer(record))


def data_map(archive: Forward, at: int, stop: int) -> tuple[Numbers, int]:
    """Return the map of version 1.0 at `at`, and where the data behind it begins."""
    lines = _Lines(archive, at, stop)
    count = lines.next()
    if count > EXTENTS_MAX:
        raise BadHeader(f"sparse map: {count} pieces are too many")
    numbers = _numbers(lines.next() for _ in range(2 * count))
    return numbers, at + padded(lines.consumed)


def _numbers(values: Iterable[int]) -> Numbers:
    numbers = array("Q")
    _extend(numbers, values)
    return numbers


def _extend(numbers: Numbers, values: Iterable[int]) -> None:
    for value in values:
        numbers.append(possible_size(value))
        if len(numbers) > 2 * EXTENTS_MAX:
            raise BadHeader(f"sparse map: more than {EXTENTS_MAX} pieces")


def _pairs(numbers: Numbers) -> Iterator[tuple[int, int]]:
    if len(numbers) % 2:
        raise BadHeader("sparse map: an odd count of numbers")
    values = iter(numbers)
    return zip(values, values, strict=True)


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) >= _LINE_MAX:
        raise BadHeader(f"sparse map: not a number: {value[:40]!r}")
    return int(value)


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


def _entries(block: bytes, at: int, count: int) -> Iterator[int]:
    for place in range(at, at + count * SPARSE_ENTRY, SPARSE_ENTRY):
        if not block[place]:
            return  # unused entries are zeros
        half = place + SPARSE_ENTRY // 2
        yield number(block[place:half])
        yield number(block[half : place + SPARSE_ENTRY])

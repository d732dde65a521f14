"""One file of equal slots on local disk that holds blocks, each with its name and checksum.

The place of a block follows from its name: the blocks of an object lie in consecutive sets of
`WAYS` slots, from a set that its identity picks, and way after way of neighbouring sets is
contiguous in the file. So a look-up is one short read of the table, a run of blocks is one long
read of the slots, nothing grows with the cache but one byte of memory per slot, and the file never
exceeds its limit. Nothing is synced: after a crash, what does not match its checksum is simply not
there.
"""

import errno
import fcntl
import logging
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import xxhash

from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data
from backgate.gateway.units import KIB

log = logging.getLogger(__name__)

BLOCK = 256 * KIB  # bytes; a lone 128 KiB read fetches one or two
WAYS = 16  # slots among which a block has its place; the least lately used of them gives way
PAGE = 4096  # bytes; slots begin at a multiple
IDENTITY = 16  # bytes
_MAGIC = b"backgate blocks\n"
_LAYOUT = 1  # version of what follows
_HEADER = struct.Struct("<16sIIQQ")  # magic, layout, block, slots, ways
_CHECKSUM = struct.Struct("<Q")
_RECORD = struct.Struct(f"<{IDENTITY}sQIIQ")  # identity, number, length, zero, checksum
_KEY = struct.Struct(f"<{IDENTITY}sQ")  # how a record begins
_EMPTY = bytes(_RECORD.size)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one object: what its blocks are filed under."""

    identity: bytes
    size: int  # bytes

    @classmethod
    def of(cls, store: str, info: ObjectInfo) -> "Version":
        """Return the version of `info` in the store of that name."""
        version = info.etag or str(info.mtime_ns)
        name = "\0".join((store, info.key, version, str(info.size)))
        return cls(xxhash.xxh3_128_digest(name.encode("utf-8", "surrogatepass")), info.size)

    def length(self, number: int) -> int:
        """Return the bytes in block `number`: the last one may be shorter."""
        return min(BLOCK, self.size - number * BLOCK)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block lies, as the table says."""

    slot: int
    length: int  # bytes
    checksum: int


class Slab:
    """The blocks on disk. Any thread may call it; a call may take milliseconds of disk time."""

    def __init__(self, path: Path, limit: int) -> None:
        """Open or make the file `path` of at most `limit` bytes.

        Raises `BlockingIOError` when another process has it, `OSError` when it cannot be had.
        """
        slots = _slots(limit)
        if slots == 0:
            raise OSError(errno.EINVAL, f"{limit} bytes are too few for a block")
        self.path = path
        self._ways = min(WAYS, slots)
        self._sets = slots // self._ways
        self._data_at = _table_stop(slots)
        self._lock = threading.Lock()  # around the table, never around block data
        self._referenced = bytearray(self._sets * self._ways)  # second chance, one per record
        self._hands = bytearray(self._sets)  # the way from which each set looks for a victim
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._prepare()
        except BaseException:
            os.close(self._file)
            raise

    @property
    def used(self) -> int:
        """The bytes that the file takes on disk."""
        return os.fstat(self._file).st_blocks * 512  # stat(2) counts in 512

    def places(self, version: Version, first: int, stop: int) -> list[Place | None]:
        """Return where each of the blocks [first, stop) lies; None for those that are not there."""
        found: list[Place | None] = []
        try:
            for start, end in self._stretches(version, first, stop):
                with self._lock:
                    table = self._table(version, start, end)
                    found += [
                        self._place(table, version, start, number) for number in range(start, end)
                    ]
        except OSError as error:
            self._warn(error)
        return found + [None] * (stop - first - len(found))

    def read(self, version: Version, first: int, places: list[Place]) -> memoryview:
        """Return the blocks at `places`, up to the first whose checksum does not hold.

        One that was damaged on disk is forgotten, with a warning; one that has just given way is
        not worth a word.
        """
        buffer = memoryview(bytearray(sum(place.length for place in places)))
        at = 0
        for start, end in _contiguous(places):
            length = sum(place.length for place in places[start:end])
            self._fill(buffer[at : at + length], self._offset(places[start].slot))
            at += length
        at = 0
        for number, place in enumerate(places, first):
            block = buffer[at : at + place.length]
            if _checksum(version, number, block) != place.checksum:
                self._forget(version, number, place)
                break
            at += place.length
        return buffer[:at].toreadonly()

    def write(self, version: Version, first: int, data: Data) -> None:
        """Keep `data`, which begins with block `first`; what is there already stays as it is.

        Raises `OSError` when the disk is full or fails; the blocks are then missing.
        """
        view = memoryview(data)
        count = -(-len(view) // BLOCK)
        for start, end in self._stretches(version, first, first + count):
            slots = self._claim(version, start, end)
            at = (start - first) * BLOCK
            for number, blocks in _runs(slots):
                piece = view[at + (number - start) * BLOCK :][: blocks * BLOCK]
                self._write_all(piece, self._offset(slots[number]))
            self._file_under(version, start, slots, view[at:])

    def close(self) -> None:
        os.close(self._file)

    def _prepare(self) -> None:
        os.fchmod(self._file, 0o600)
        header = _HEADER.pack(_MAGIC, _LAYOUT, BLOCK, self._sets * self._ways, self._ways)
        header += _CHECKSUM.pack(xxhash.xxh3_64_intdigest(header))
        size = self._data_at + self._sets * self._ways * BLOCK
        if os.pread(self._file, len(header), 0) == header and os.fstat(self._file).st_size == size:
            return
        os.ftruncate(self._file, 0)  # another size, another layout, or damaged: begin anew
        os.ftruncate(self._file, size)  # sparse: a slot takes disk when it is first filled
        os.pwrite(self._file, header, 0)

    def _stretches(self, version: Version, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """Cut a run of blocks where the sets start over: within a stretch no set comes twice."""
        while first < stop:
            end = min(stop, first + self._sets - self._set(version, first))
            yield first, end
            first = end

    def _set(self, version: Version, number: int) -> int:
        return (int.from_bytes(version.identity[:8], "little") + number) % self._sets

    def _offset(self, slot: int) -> int:
        return self._data_at + slot * BLOCK

    def _table_at(self, version: Version, start: int) -> int:
        return PAGE + self._set(version, start) * self._ways * _RECORD.size

    def _table(self, version: Version, start: int, end: int) -> bytes:
        length = (end - start) * self._ways * _RECORD.size
        return os.pread(self._file, length, self._table_at(version, start)).ljust(length, b"\0")

    def _place(
        self, table: bytes | bytearray, version: Version, start: int, number: int
    ) -> Place | None:
        at = (number - start) * self._ways * _RECORD.size
        found = table.find(_KEY.pack(version.identity, number), at, at + self._ways * _RECORD.size)
        way, rest = divmod(found - at, _RECORD.size)
        if found < 0 or rest:
            return None
        _, _, length, _, checksum = _RECORD.unpack_from(table, found)
        if length != version.length(number):
            return None
        group = self._set(version, number)
        self._referenced[group * self._ways + way] = 1
        return Place(way * self._sets + group, length, checksum)

    def _fill(self, buffer: memoryview, offset: int) -> None:
        """Read; where the file cannot be read the buffer stays zero, and the checksum tells."""
        try:
            while buffer and (count := os.preadv(self._file, [buffer], offset)):
                buffer, offset = buffer[count:], offset + count
        except OSError as error:
            self._warn(error)

    def _forget(self, version: Version, number: int, place: Place) -> None:
        try:
            with self._lock:
                table = self._table(version, number, number + 1)
                if self._place(table, version, number, number) != place:
                    return
                way = place.slot // self._sets
                at = self._table_at(version, number) + way * _RECORD.size
                os.pwrite(self._file, _EMPTY, at)
        except OSError as error:
            self._warn(error)
        log.warning("block cache %s: a block does not match its checksum, fetching it", self.path)

    def _warn(self, error: OSError) -> None:
        log.warning("block cache %s: %s, reading without", self.path, error.strerror)

    def _claim(self, version: Version, start: int, end: int) -> dict[int, int]:
        """Choose a slot for each block that is not there, and strike out what was in it."""
        slots: dict[int, int] = {}
        with self._lock:
            table = bytearray(self._table(version, start, end))
            for number in range(start, end):
                if self._place(table, version, start, number) is None:
                    group = self._set(version, number)
                    at = (number - start) * self._ways * _RECORD.size
                    way = self._victim(table, at, group)
                    table[at + way * _RECORD.size : at + (way + 1) * _RECORD.size] = _EMPTY
                    slots[number] = way * self._sets + group
            self._write_all(table, self._table_at(version, start))
        return slots

    def _victim(self, table: bytearray, at: int, group: int) -> int:
        for way in range(self._ways):
            if table.startswith(_EMPTY, at + way * _RECORD.size):
                return way
        way = self._hands[group]
        while self._referenced[group * self._ways + way]:
            self._referenced[group * self._ways + way] = 0
            way = (way + 1) % self._ways
        self._hands[group] = (way + 1) % self._ways
        return way

    def _file_under(
        self, version: Version, start: int, slots: dict[int, int], data: memoryview
    ) -> None:
        """Enter the blocks that now lie in their `slots`; `data` begins with block `start`."""
        with self._lock:
            for number, slot in slots.items():
                block = data[(number - start) * BLOCK :][:BLOCK]
                checksum = _checksum(version, number, block)
                record = _RECORD.pack(version.identity, number, len(block), 0, checksum)
                way = slot // self._sets
                at = self._table_at(version, number) + way * _RECORD.size
                self._write_all(record, at)

    def _write_all(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self._file, view, offset)
            view, offset = view[count:], offset + count


def _slots(limit: int) -> int:
    """Return how many slots fit into `limit` bytes with their table: whole sets, or few."""
    slots = max(0, (limit - 2 * PAGE) // (BLOCK + _RECORD.size))
    return slots if slots < WAYS else slots // WAYS * WAYS


def _table_stop(slots: int) -> int:
    return PAGE + -(-slots * _RECORD.size // PAGE) * PAGE


def _checksum(version: Version, number: int, block: Data) -> int:
    checksum = xxhash.xxh3_64(_KEY.pack(version.identity, number))
    checksum.update(block)
    return checksum.intdigest()


def _contiguous(places: list[Place]) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of the `places` that follow each other on disk."""
    start = 0
    for end in range(1, len(places) + 1):
        if end == len(places) or places[end].slot != places[end - 1].slot + 1:
            yield start, end
            start = end


def _runs(slots: dict[int, int]) -> Iterator[tuple[int, int]]:
    """Yield (first block, count) of those that follow each other in number and on disk."""
    first, count = -1, 0
    for number, slot in slots.items():
        if count and number == first + count and slot == slots[first] + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = number, 1
    if count:
        yield first, count

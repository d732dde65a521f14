"""A sorted table of blob locations in one local file: 48 bytes for each blob, hardly any memory.

    header | ids of the index files it was made of | pack ids | records, by blob id | fan-out

A record is `blob id (32) | pack number | offset | length | plain length`, four native u32. The
fan-out says where the records of each id prefix begin, so a look-up is one `pread` of a few KiB.
It is read with `pread` rather than mapped: the pages of a map of 480 MB would count as ours.
The file is only a cache: a checksum guards it, and what does not fit is made again.
"""

import os
import struct
import sys
import weakref
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import xxhash

from backgate.fs.formats.restic.documents import ID
from backgate.gateway.errors import Damaged
from backgate.gateway.units import KIB, MIB

RECORD = 48  # bytes
NO_COMPRESSION = 0  # as plain length: the blob is stored as it is
BUCKET = 128  # records that a prefix should have; 6 KiB are read for one look-up
PREFIX_BITS_MAX = 16
SCAN_MAX = 64 * KIB  # bytes read for one look-up; ids that crowd one prefix are bisected first
CHECK_STEP = MIB  # bytes hashed at a time

_MAGIC = b"backgate restic index 1 " + sys.byteorder.encode().ljust(8)
_HEADER = struct.Struct("=32sQQIII4xQ")  # magic, file size, records, packs, ids, bits, checksum
_NUMBERS = struct.Struct("=IIII")


@dataclass(frozen=True, slots=True)
class Location:
    """Where one copy of a blob lies."""

    pack: bytes  # id
    offset: int  # bytes
    length: int  # bytes, envelope included
    plain_length: int  # bytes of the compressed blob's plaintext, NO_COMPRESSION for others


class Segment:
    """An open table. Several threads may search it; it is closed when nobody has it any more."""

    def __init__(self, path: Path) -> None:
        """Open and verify the file; `ValueError` when it is not whole, `OSError` as open(2)."""
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd)
        header = os.pread(self._fd, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            raise ValueError(f"{path}: no header")
        magic, size, self.count, packs, ids, bits, checksum = _HEADER.unpack(header)
        if magic != _MAGIC or size != os.fstat(self._fd).st_size:
            raise ValueError(f"{path}: of another version or size")
        self._shift = PREFIX_BITS_MAX - bits
        self._records_at = _HEADER.size + (ids + packs) * ID
        if _digest_of(self._fd, size) != checksum:
            raise ValueError(f"{path}: its checksum does not match")
        names = os.pread(self._fd, self._records_at - _HEADER.size, _HEADER.size)
        self.index_ids = frozenset(_split(names[: ids * ID], ID))
        self.packs = names[ids * ID :]
        fan_out_at = self._records_at + self.count * RECORD
        fan_out = os.pread(self._fd, size - fan_out_at, fan_out_at)
        self._fan_out = array("I", fan_out)

    def find(self, blob: bytes) -> list[Location]:
        """Return all locations of `blob` that this table knows."""
        start, stop = self._narrowed(blob)
        data = self.records(start, stop - start)
        found: list[Location] = []
        at = data.find(blob)
        while at >= 0:
            if at % RECORD == 0:
                found.append(self._location(data, at))
            at = data.find(blob, at + (1 if at % RECORD else RECORD))
        return found

    def records(self, first: int, count: int) -> bytes:
        """Return the bytes of up to `count` records from number `first` on."""
        count = max(0, min(count, self.count - first))
        offset = self._records_at + first * RECORD
        try:
            return os.pread(self._fd, count * RECORD, offset)
        except OSError as error:
            raise Damaged(str(self.path), offset, f"cannot be read: {error.strerror}") from error

    def _narrowed(self, blob: bytes) -> tuple[int, int]:
        prefix = int.from_bytes(blob[:2], "big") >> self._shift
        start, stop = self._fan_out[prefix], self._fan_out[prefix + 1]
        while (stop - start) * RECORD > SCAN_MAX:
            middle = (start + stop) // 2
            found = self.records(middle, 1)[:ID]
            if found == blob:  # its copies are neighbours
                few = SCAN_MAX // RECORD // 2
                return max(start, middle - few), min(stop, middle + few)
            if found < blob:
                start = middle + 1
            else:
                stop = middle
        return start, stop

    def _location(self, data: bytes, at: int) -> Location:
        pack, offset, length, plain_length = _NUMBERS.unpack_from(data, at + ID)
        return Location(self.packs[pack * ID : pack * ID + ID], offset, length, plain_length)


def write_segment(
    path: Path,
    index_ids: Iterable[bytes],
    packs: Sequence[bytes],
    count: int,
    records: Iterable[bytes],
) -> None:
    """Write a table of `count` records, which come sorted in pieces; it appears whole or not."""
    names = b"".join(index_ids)
    pack_names = b"".join(packs)
    bits = min(PREFIX_BITS_MAX, max(0, (count // BUCKET).bit_length()))
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    checksum = xxhash.xxh3_64()
    counts: Counter[int] = Counter()
    try:
        with open(temporary, "wb", opener=_private) as file:
            file.write(bytes(_HEADER.size))
            for piece in chain((names, pack_names), _counted(records, counts)):
                file.write(piece)
                checksum.update(piece)
            fan_out = _fan_out(counts, bits)
            file.write(fan_out)
            checksum.update(fan_out)
            numbers = (count, len(pack_names) // ID, len(names) // ID, bits, checksum.intdigest())
            header = _HEADER.pack(_MAGIC, file.tell(), *numbers)
            file.seek(0)
            file.write(header)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _counted(records: Iterable[bytes], counts: Counter[int]) -> Iterator[bytes]:
    """Pass `records` on, counting them by the first two bytes of their ids."""
    for piece in records:
        prefixes = bytearray(len(piece) // RECORD * 2)
        prefixes[0::2] = piece[0::RECORD]
        prefixes[1::2] = piece[1::RECORD]
        counts.update(array("H", bytes(prefixes)))
        yield piece


def _fan_out(counts: Counter[int], bits: int) -> bytes:
    starts = array("I", bytes(4 * ((1 << bits) + 1)))
    for prefix, number in counts.items():
        first_two = int.from_bytes(prefix.to_bytes(2, sys.byteorder), "big")
        starts[(first_two >> (PREFIX_BITS_MAX - bits)) + 1] += number
    for prefix in range(1, len(starts)):
        starts[prefix] += starts[prefix - 1]
    return starts.tobytes()


def _digest_of(fd: int, size: int) -> int:
    checksum = xxhash.xxh3_64()
    for at in range(_HEADER.size, size, CHECK_STEP):
        checksum.update(os.pread(fd, CHECK_STEP, at))
    return checksum.intdigest()


def _split(data: bytes, width: int) -> list[bytes]:
    return [data[at : at + width] for at in range(0, len(data), width)]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)

"""The log of XFS on the disk: a ring of records, and which of them have not been written back."""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from backgate.fs.volume import Device
from backgate.fs.volumes.checksums import crc32c, crc32c_around
from backgate.fs.volumes.reading import read_exactly
from backgate.fs.volumes.xfs_geometry import Geometry
from backgate.gateway.errors import Damaged

SECTOR = 512  # bytes; the log is counted in them, whatever the sectors of the disk
AT_ONCE = 2048  # sectors that are read at once
UNSURE_RECORDS = 8  # before the end, that may have been written out of order
UNSURE = 512 * (UNSURE_RECORDS + 1)  # sectors of the largest of them, and of one that is whole
LOG_MAX = 1 << 22  # sectors: 2 GiB, the largest log there is

_MAGIC, _MAGIC_BYTES = 0xFEEDBABE, b"\xfe\xed\xba\xbe"
_HEADER = Struct(">IIIIQQI4xI")  # up to the number of operations
_WORD, _UUID, _FORMAT_AT, _SIZE_AT = Struct(">I"), slice(304, 320), 300, 320
_LITTLE_ENDIAN = 1
_CRC_AT, _MORE_CRC_BYTES = 32, 260  # of a further header
_HEADER_CRC_BYTES = (328, 324)  # of the first; on machines of 32 bits it is shorter
_CYCLES_AT, _MORE_CYCLES_AT = 44, 4  # what each sector began with before its cycle was put there
_HEADER_COVERS = 32768  # bytes of a record, in version 2: 64 sectors
_RECORD_MAX = 262144 + SECTOR  # bytes
_CYCLE = Struct(">II")
_UNMOUNTED = 0x20  # flag of an operation
_FLAGS_AT = 9  # of an operation


class Record(NamedTuple):
    """One record, with its sectors as they were before they were stamped."""

    lsn: int  # cycle and sector: it only grows
    operations: int
    data: bytes


class _Header(NamedTuple):
    """What stands in front of a record."""

    sector: int  # of the log
    lsn: int
    tail: int  # the lsn of the oldest record that was needed then
    operations: int
    length: int  # bytes of the record
    headers: int  # sectors
    crc: int  # 0: it has none

    @property
    def sectors(self) -> int:
        return self.headers - (-self.length // SECTOR)


class Log:
    """The records between the oldest that is needed and the last that was written whole."""

    def __init__(self, device: Device, layout: Geometry) -> None:
        """Find them; `Damaged` where there is no log, or what there is does not hold together."""
        if not layout.log_start:
            raise Damaged("log", None, "it lies on another device, which is not supported")
        self._device, self._layout = device, layout
        self._at = layout.block_at(layout.log_start)
        self._sectors = layout.log_blocks * layout.block_size // SECTOR
        if not UNSURE_RECORDS < self._sectors <= LOG_MAX:
            raise Damaged("log", self._at, f"a log of {self._sectors} sectors")
        self._uuids = (layout.uuid, layout.meta_uuid)
        self._last = self._last_record()

    @property
    def is_clean(self) -> bool:
        """Tell whether nothing has to be written back: it was unmounted, or never used."""
        last = self._last
        if last is None:
            return True
        if last.operations != 1:
            return False
        return bool(self.read(last.sector + last.headers, 1)[_FLAGS_AT] & _UNMOUNTED)

    @property
    def active(self) -> int:
        """The bytes from the oldest record that is needed to the end of the last."""
        if self._last is None:
            return 0
        end = self._last.sector + self._last.sectors
        return ((end - (self._last.tail & 0xFFFF_FFFF) - 1) % self._sectors + 1) * SECTOR

    def records(self) -> Iterator[Record]:
        """Give the records, oldest first; may be asked for again.

        `Damaged` where they are not all there and right.
        """
        if self._last is None:
            return
        if self._last.tail & 0xFFFF_FFFF >= self._sectors:
            raise Damaged("log", self._at, f"its oldest record is said to be {self._last.tail:#x}")
        sector, left = self._oldest()
        ahead = _Ahead(self, sector, left)
        while left:
            header = self._header(ahead.sectors(1), sector)
            if header is None or header.sectors > left or not self._is_due(header):
                raise Damaged("log", self._at + sector * SECTOR, "a record is missing")
            raw = ahead.sectors(header.sectors)
            if not self._is_right(header, raw):
                raise Damaged("log", self._at + sector * SECTOR, "a record is damaged")
            yield Record(header.lsn, header.operations, _unstamped(header, raw))
            ahead.skip(header.sectors)
            left -= header.sectors
            sector = (sector + header.sectors) % self._sectors

    def _oldest(self) -> tuple[int, int]:
        """Return where the oldest record is, and how many sectors there are from it to the end.

        Behind the last record others may have been begun, over the oldest that it still asks for:
        what those said had been written back by then.
        """
        assert self._last is not None
        sector, left = self._last.tail & 0xFFFF_FFFF, self.active // SECTOR
        while left and self._sectors - left < UNSURE and not self._is_whole(sector):
            sector, left = (sector + 1) % self._sectors, left - 1
        return sector, left

    def _is_whole(self, sector: int) -> bool:
        """Tell whether a record that is due there begins there, and is right."""
        header = self._header(self.read(sector, 1), sector)
        if header is None or not self._is_due(header):
            return False
        return self._is_right(header, self.read(sector, header.sectors))

    def _is_due(self, header: _Header) -> bool:
        """Tell whether a record is of the round of the last one, or behind it of the one before.

        One of another round is what a lost write left there, or one that came too early.
        """
        assert self._last is not None
        return header.lsn >> 32 == (self._last.lsn >> 32) - (header.sector > self._last.sector)

    def read(self, sector: int, count: int) -> bytes:
        """Return `count` sectors of the ring."""
        sector %= self._sectors
        here = min(count, self._sectors - sector)
        data = read_exactly(self._device, self._at + sector * SECTOR, here * SECTOR, "log")
        return data + self.read(0, count - here) if count > here else data

    def _last_record(self) -> _Header | None:
        """Find the last record that was written whole; None in a log that was never used."""
        cycle, end = self._end()
        if cycle == 0:
            return None
        span = min(UNSURE, self._sectors)
        first = (end - span) % self._sectors
        before = self.read(first, span)
        wrapped = max(0, span - end)  # sectors of the round before
        for at in range(span):
            if _cycle(before, at) == cycle - (at < wrapped) - 1:  # it never came to be written
                before = before[: at * SECTOR]
                break
        last, unsure = None, self._whole_records(before, first)
        sure = len(unsure) - UNSURE_RECORDS
        for number, (header, raw) in enumerate(unsure):
            if number >= sure and not self._is_right(header, raw):
                break
            last = header
        if last is None:
            raise Damaged("log", self._at, "no whole record in it")
        return last

    def _end(self) -> tuple[int, int]:
        """Return the round that is being written, and the sector where the one before it goes on.

        The round is 0 for a log that was never used.
        """
        first = self._cycle_of(0)
        low, high = self._around(first)
        if high == self._sectors and self._cycle_of(high - 1) == first:
            return (first + 1 if first else 0), 0
        while high - low > 1:
            middle = (low + high) // 2
            if self._cycle_of(middle) == first:
                low = middle
            else:
                high = middle
        return first, high

    def _around(self, cycle: int) -> tuple[int, int]:
        """Return a sector of round `cycle`, and one behind its last, not far from each other.

        The superblock says where the log was when it was last written: often a moment ago.
        """
        low, step = self._layout.lsn & 0xFFFF_FFFF, 1
        if low >= self._sectors or self._cycle_of(low) != cycle:
            return 0, self._sectors
        while low + step < self._sectors:
            if self._cycle_of(low + step) != cycle:
                return low, low + step
            low, step = low + step, step * 2
        return low, self._sectors

    def _cycle_of(self, sector: int) -> int:
        return _cycle(self.read(sector, 1), 0)

    def _whole_records(self, data: bytes, first: int) -> list[tuple[_Header, bytes]]:
        found, sectors = [], len(data) // SECTOR
        for at in range(sectors):
            if data.startswith(_MAGIC_BYTES, at * SECTOR):
                start = at * SECTOR
                header = self._header(data[start : start + SECTOR], (first + at) % self._sectors)
                if header is not None and at + header.sectors <= sectors:
                    found.append((header, data[start : start + header.sectors * SECTOR]))
        return found

    def _header(self, data: bytes, sector: int) -> _Header | None:
        """Return the header that `data` is; None where it is none that was written there."""
        magic, _, version, length, lsn, tail, _, operations = _HEADER.unpack_from(data)
        if magic != _MAGIC or lsn & 0xFFFF_FFFF != sector or data[_UUID] not in self._uuids:
            return None
        if _WORD.unpack_from(data, _FORMAT_AT)[0] != _LITTLE_ENDIAN:
            raise Damaged("log", self._at, "a log of a big-endian machine is not supported")
        size = _WORD.unpack_from(data, _SIZE_AT)[0] if version == 2 else 0
        headers = max(1, -(-size // _HEADER_COVERS))
        if not 0 < length <= _RECORD_MAX or length > headers * _HEADER_COVERS:
            return None
        crc = int.from_bytes(data[_CRC_AT : _CRC_AT + _WORD.size], "little")
        return _Header(sector, lsn, tail, operations, length, headers, crc)

    def _is_right(self, header: _Header, raw: bytes) -> bool:
        if not header.crc:  # what mkfs.xfs wrote has none
            return True
        covered = range(1, -(-header.length // _HEADER_COVERS))  # of the further headers
        starts = [number * SECTOR for number in covered]
        more = b"".join(raw[start : start + _MORE_CRC_BYTES] for start in starts)
        begin = header.headers * SECTOR
        more += raw[begin : begin + header.length]
        return any(
            crc32c(more, crc32c_around(raw[:size], _CRC_AT)) == header.crc
            for size in _HEADER_CRC_BYTES
        )


class _Ahead:
    """Reads sectors of the log in large pieces."""

    def __init__(self, log: Log, sector: int, left: int) -> None:
        self._log, self._sector, self._left = log, sector, left  # what has not been read
        self._have, self._at = b"", 0

    def sectors(self, count: int) -> bytes:
        stop = self._at + count * SECTOR
        if stop > len(self._have):
            rest = self._have[self._at :]
            more = min(max(AT_ONCE, count), self._left)
            self._have, self._at = rest + self._log.read(self._sector, more), 0
            self._sector, self._left, stop = self._sector + more, self._left - more, count * SECTOR
        return self._have[self._at : stop]

    def skip(self, count: int) -> None:
        self._at += count * SECTOR


def _cycle(data: bytes, sector: int) -> int:
    first, second = _CYCLE.unpack_from(data, sector * SECTOR)
    return int(second if first == _MAGIC else first)


def _unstamped(header: _Header, raw: bytes) -> bytes:
    """Return the contents of a record; each sector of it begins with the round it is of."""
    begin = header.headers * SECTOR
    data = bytearray(raw[begin:])
    for page in range(-(-len(data) // _HEADER_COVERS)):
        start = page * _HEADER_COVERS
        stop = min(start + _HEADER_COVERS, len(data))
        at = page * SECTOR + (_MORE_CYCLES_AT if page else _CYCLES_AT)
        end = at + (stop - start) // SECTOR * _WORD.size
        for byte in range(_WORD.size):
            data[start + byte : stop : SECTOR] = raw[at + byte : end : _WORD.size]
    return bytes(data[: header.length])

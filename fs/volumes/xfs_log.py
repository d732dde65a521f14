"""Replay the log of XFS, in memory, over the device.

The log says of buffers which 128 bytes of them changed, and of inodes what they became. As the
kernel does, it is gone through twice: first for the buffers that were given up, whose older changes
must not be made, then for the changes. What the disk has of a later time is left alone.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from struct import Struct
from time import process_time
from typing import Any, NamedTuple

from backgate.fs.volume import Device
from backgate.fs.volumes import replay
from backgate.fs.volumes.devices import Overlay
from backgate.fs.volumes.reading import read_exactly
from backgate.fs.volumes.replay import Replay, counted
from backgate.fs.volumes.xfs_geometry import Geometry
from backgate.fs.volumes.xfs_log_inode import NO_LSNS, LoggedInode, new_inode, replayed_inode
from backgate.fs.volumes.xfs_log_items import (
    BUFFER,
    BUFFER_OF_INODES,
    CANCELLED,
    INODE,
    MAP_BEGUN,
    MAP_DONE,
    NEW_INODES,
    Item,
    Transaction,
    buffer_flags,
    kind,
    transactions,
)
from backgate.fs.volumes.xfs_log_records import SECTOR, Log
from backgate.gateway.errors import Damaged

SECONDS = 7  # of CPU: a request has ten
KEPT_MAX = 64 << 20  # bytes of log that are kept in memory between the two passes
CHANGED_MAX = 256 << 20  # bytes of metadata that may be kept in memory

_BUFFER = Struct("<4xHHqI")  # flags, length and place in sectors, words of the map
_BUFFER_MAX = 65536 // SECTOR  # sectors
_GRAIN = 128  # bytes that a bit of the map stands for
_KIND_SHIFT = 11
_NOT_NEEDED = {1, 2, 3, 5, 6, 7, 12}  # kinds of buffers: quotas, free space, free inodes
_INODE, _INODE_32 = Struct("<4xIHH4xQ16sqii"), Struct("<4xIHHQ16sqii")
_NEW_INODES = Struct(">4xIIIIII")  # group, block, count, size, length, generation
_NEW_INODES_MAX = 64 * 2048  # bytes
_IDENTITY = Struct("<8xQ")
_LSN_PLACES = {  # of a kind of block by its magic: where its lsn and the file system's uuid are
    b"XFSB": (240, 32),
    b"XDB3": (16, 24),
    b"XDD3": (16, 24),
    b"XDF3": (16, 24),
    b"BMA3": (32, 40),
    b"XSLM": (48, 16),
    b"AB3B": (24, 32),
    b"AB3C": (24, 32),
    b"IAB3": (24, 32),
    b"FIB3": (24, 32),
    b"RMB3": (24, 32),
    b"R3FC": (24, 32),
}
_INDEX_MAGICS, _INDEX_PLACES = {b"\x3d\xf1", b"\x3d\xff", b"\x3e\xbe", b"\x3b\xee"}, (24, 32)


class LogReplay(NamedTuple):
    """What the replay came to."""

    replay: Replay
    unsealed: frozenset[int]  # where blocks and inodes begin whose checksums are older than they


def replay_log(device: Device, layout: Geometry) -> LogReplay:
    """Return `device` as it is once the log has been replayed.

    A log that cannot be read leaves the device as it is, and the notes say why.
    """
    try:
        log = Log(device, layout)
        if log.is_clean:
            return LogReplay(replay.clean(device), frozenset())
        changes = Changes(device, layout)
        _replay(log, changes)
    except Damaged as error:
        return LogReplay(replay.unreplayed(device, str(error)), frozenset())
    overlay = Overlay(device, SECTOR, changes.sectors)
    return LogReplay(replay.replayed(overlay, *changes.words()), frozenset(changes.unsealed))


def _replay(log: Log, changes: "Changes") -> None:
    kept: list[Transaction] = []
    for transaction in transactions(log.records()):
        changes.cancel(transaction)
        if log.active <= KEPT_MAX:
            kept.append(transaction)
    for transaction in kept or transactions(log.records()):
        changes.make(transaction)


class Changes:
    """What the log changes, sector by sector."""

    def __init__(self, device: Device, layout: Geometry) -> None:
        self._device, self._layout = device, layout
        self._cancelled: Counter[tuple[int, int]] = Counter()  # place and length in sectors
        self._transactions = self._inodes = self._buffers = 0
        self._unfinished: set[int] = set()
        self._stop = process_time() + SECONDS
        self.sectors: dict[int, bytes] = {}
        self.unsealed: set[int] = set()

    def words(self) -> Iterator[str]:
        """Say what was done."""
        yield counted(self._transactions, "transaction")
        yield counted(self._buffers, "buffer")
        yield counted(self._inodes, "inode")
        if self._unfinished:
            what = counted(len(self._unfinished), "change")
            yield f"but {what} of shared extents had only begun: parts of files may be missing"

    def cancel(self, transaction: Transaction) -> None:
        """Note which buffers a transaction gave up."""
        self._check_time()
        for item in transaction.items:
            if kind(item) == BUFFER and buffer_flags(item) & CANCELLED:
                _, length, place, _ = _unpacked(_BUFFER, item[0])
                self._cancelled[place, length] += 1

    def make(self, transaction: Transaction) -> None:
        """Make the changes of one transaction."""
        self._transactions += 1
        for item in transaction.items:
            self._check_time()  # a few bytes of a log can mean a lot of work
            what = kind(item)
            if what == BUFFER:
                self._buffer(item, transaction.lsn)
            elif what == INODE:
                self._inode(item, transaction.lsn)
            elif what == NEW_INODES:
                self._new_inodes(item)
            elif what == MAP_BEGUN:
                self._unfinished.add(_unpacked(_IDENTITY, item[0])[0])
            elif what == MAP_DONE:
                self._unfinished.discard(_unpacked(_IDENTITY, item[0])[0])

    def _check_time(self) -> None:
        if process_time() > self._stop:
            raise Damaged("log", None, "replaying it takes too long")

    def _buffer(self, item: Item, lsn: int) -> None:
        flags, length, place, words = _unpacked(_BUFFER, item[0])
        if flags & CANCELLED:
            if self._cancelled[place, length]:
                self._cancelled[place, length] -= 1
            return
        if self._cancelled[place, length] or flags & BUFFER_OF_INODES:
            return
        if flags >> _KIND_SHIFT in _NOT_NEEDED:
            return
        if not 0 < length <= _BUFFER_MAX or _BUFFER.size + 4 * words > len(item[0]):
            raise Damaged("log", None, f"a buffer of {length} sectors")
        data = bytearray(self._read(place * SECTOR, length * SECTOR))
        if self._layout.is_v5 and _block_lsn(data, self._layout.meta_uuid) >= lsn:
            return
        words_of_map = item[0][_BUFFER.size : _BUFFER.size + 4 * words]
        _patch(data, int.from_bytes(words_of_map, "little"), item[1:])
        self._buffers += 1
        self._write(place * SECTOR, data)
        self.unsealed.add(place * SECTOR)

    def _inode(self, item: Item, lsn: int) -> None:
        layout = _INODE_32 if len(item[0]) == _INODE_32.size else _INODE
        fields, _, _, number, rest, place, length, within = _unpacked(layout, item[0])
        if self._cancelled[place, length] > 0:
            return
        size = self._layout.inode_size
        at = place * SECTOR + within
        if not 0 <= within <= length * SECTOR - size or at % size:
            raise Damaged("log", None, f"inode {number} is said to be at byte {at}")
        start = at - at % SECTOR
        data = bytearray(self._read(start, max(size, SECTOR)))
        old = bytes(data[at - start : at - start + size])
        new = replayed_inode(old, LoggedInode(number, fields, rest, item[1:]), lsn, self._layout)
        if new is not None:
            data[at - start : at - start + size] = new
            self._inodes += 1
            self._write(start, data)
            self.unsealed.add(at)

    def _new_inodes(self, item: Item) -> None:
        group, block, count, size, length, generation = _unpacked(_NEW_INODES, item[0])
        layout = self._layout
        number = group << layout.ag_block_bits | block
        start, stop = layout.block_at(number), layout.block_at(number) + length * layout.block_size
        if size != layout.inode_size or not 0 < count * size == stop - start <= _NEW_INODES_MAX:
            raise Damaged("log", start, f"{count} new inodes in {length} blocks")
        for (place, _), times in self._cancelled.items():
            if times and start <= place * SECTOR < stop:
                return
        inodes = [
            new_inode((number << layout.inode_bits) + at, generation, layout) for at in range(count)
        ]
        self._write(start, b"".join(inodes))
        self.unsealed |= set(range(start, stop, size))

    def _read(self, start: int, length: int) -> bytes:
        sectors = range(start // SECTOR, (start + length) // SECTOR)
        have = [self.sectors.get(sector) for sector in sectors]
        if None in have:
            read = read_exactly(self._device, start, length, "log")
            parts = [read[at : at + SECTOR] for at in range(0, length, SECTOR)]
            have = [new or old for new, old in zip(have, parts, strict=True)]
        return b"".join(sector for sector in have if sector)

    def _write(self, start: int, data: bytes | bytearray) -> None:
        first = start // SECTOR
        for at in range(0, len(data), SECTOR):
            self.sectors[first + at // SECTOR] = bytes(data[at : at + SECTOR])
        if len(self.sectors) * SECTOR > CHANGED_MAX:
            raise Damaged("log", None, f"changes more than {CHANGED_MAX >> 20} MiB of metadata")


def _unpacked(layout: Struct, region: bytes) -> tuple[Any, ...]:
    if len(region) < layout.size:
        raise Damaged("log", None, "an item is cut off")
    return layout.unpack_from(region)


def _patch(data: bytearray, bits: int, regions: Sequence[bytes]) -> None:
    """Put the regions where `bits` says that the buffer changed, in runs of set bits."""
    at = 0
    for region in regions:
        left = bits >> at
        if not left:
            return
        at += (left & -left).bit_length() - 1
        left = bits >> at
        run = min((left ^ (left + 1)).bit_length() - 1, len(region) // _GRAIN)
        start, stop = at * _GRAIN, (at + run) * _GRAIN
        if not run or stop > len(data):
            raise Damaged("log", None, "a buffer changed where it has no bytes")
        data[start:stop] = region[: stop - start]
        at += run


def _block_lsn(data: bytes | bytearray, uuid: bytes) -> int:
    """Return the lsn that a block says it is of; 0 where it says none that counts."""
    places = _LSN_PLACES.get(bytes(data[:4]))
    if places is None and bytes(data[8:10]) in _INDEX_MAGICS:
        places = _INDEX_PLACES
    if places is None or data[places[1] : places[1] + len(uuid)] != uuid:
        return 0
    lsn = int.from_bytes(data[places[0] : places[0] + 8], "big")
    return 0 if lsn in NO_LSNS else lsn

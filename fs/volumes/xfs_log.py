"""Replay the log of XFS, in memory, over the device.

The log says of buffers which 128 bytes of them changed, and of inodes what they became. As the
kernel does, it is gone through twice: first for the buffers that were given up, whose older changes
must not be made, then for the changes. What the disk has of a later time is left alone.

No more of the log is kept than the transactions that are being read, and what it changes is kept
compressed: a log may have 2 GiB.
"""

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from struct import Struct
from time import process_time
from typing import Any, NamedTuple

from cachetools import LRUCache

from backgate.fs.volume import Device
from backgate.fs.volumes import replay
from backgate.fs.volumes.changed import ChangedSectors
from backgate.fs.volumes.devices import Overlay
from backgate.fs.volumes.limits import raised
from backgate.fs.volumes.reading import read_exactly
from backgate.fs.volumes.replay import PACE, Replay, counted
from backgate.fs.volumes.xfs_geometry import Geometry, geometry
from backgate.fs.volumes.xfs_log_buffer import block_lsn, is_read, patch
from backgate.fs.volumes.xfs_log_inode import LoggedInode, new_inodes, replayed_inode
from backgate.fs.volumes.xfs_log_items import (
    BEGUN,
    BUFFER,
    BUFFER_OF_INODES,
    CANCELLED,
    DONE,
    INODE,
    NEW_INODES,
    TREE_BLOCK,
    Item,
    Transaction,
    buffer_flags,
    buffer_kind,
    is_cancelled,
    is_needed,
    kind,
    transactions,
)
from backgate.fs.volumes.xfs_log_records import SECTOR, Log, Record
from backgate.gateway.errors import Damaged

SECONDS = 15  # of CPU that any log may take; one more for each `PACE` bytes of it
TOGETHER_MAX = 32 << 20  # bytes of transactions that are made together
FETCHED_MAX = 192 << 20  # bytes that are read for them beforehand
CANCELLED_MAX = 1 << 20  # buffers given up in one log
STRETCH = 1 << 20  # bytes that are asked of the store at once
STRETCHES_MAX = 14_000  # that a replay may ask for beside the log

_NEAR = 48  # stretches that are kept, surely
_ITEMS_TIMED = 64  # between two looks at the clock
_BUFFER = Struct("<4xHHqI")  # flags, length and place in sectors, words of the map
_BUFFER_MAX = 65536 // SECTOR  # sectors
_WORDS_MAX = 32  # of the map; twice what a buffer can need
_INODE, _INODE_32 = Struct("<4xIHH4xQ16sqii"), Struct("<4xIHHQ16sqii")
_NEW_INODES = Struct(">4xIIIIII")  # group, block, count, size, length, generation
_NEW_INODES_MAX = 64 * 2048  # bytes
_IDENTITY = Struct("<8xQ")
_KNOWN = 0x1  # features of a log: changes of attributes may be in it before they are made


class LogReplay(NamedTuple):
    """What the replay came to."""

    replay: Replay
    unsealed: Container[int]  # where blocks and inodes begin whose checksums are older than they


def replay_log(device: Device, layout: Geometry) -> LogReplay:
    """Return `device` as it is once the log has been replayed.

    A log that cannot be read leaves the device as it is, and the notes say why.
    """
    try:
        log = Log(device, layout)
        if log.is_clean:
            return LogReplay(replay.clean(device), frozenset())
        if unknown := layout.log_features & ~_KNOWN:
            raise Damaged("log", None, f"features {unknown:#x} are not supported")
        changes = _changes(log, device, layout)
    except Damaged as error:
        return LogReplay(replay.unreplayed(device, str(error)), frozenset())
    except MemoryError:
        return LogReplay(replay.unreplayed(device, "it takes too much memory"), frozenset())
    overlay = Overlay(device, SECTOR, changes.sectors)
    return LogReplay(replay.replayed(overlay, *changes.words()), _Unsealed(changes.sectors))


def _changes(log: Log, device: Device, layout: Geometry) -> "Changes":
    seconds = SECONDS + log.active // PACE
    changes = Changes(device, layout, seconds)
    with raised(cpu=seconds):
        for transaction in transactions(changes.timely(log.records()), is_cancelled):
            changes.cancel(transaction)
        for several in _together(transactions(changes.timely(log.records()), is_needed)):
            changes.fetch(several)
            for transaction in several:
                changes.make(transaction)
    return changes


def _together(found: Iterator[Transaction]) -> Iterator[list[Transaction]]:
    """Give as many transactions at a time as may be kept."""
    several, size = list[Transaction](), 0
    for transaction in found:
        several.append(transaction)
        size += transaction.size
        if size > TOGETHER_MAX:
            yield several
            several, size = [], 0
    yield several


class _Unsealed(Container[int]):
    """Where blocks begin that were changed: nobody has computed their checksums anew."""

    def __init__(self, sectors: ChangedSectors) -> None:
        self._sectors = sectors

    def __contains__(self, place: object) -> bool:
        return isinstance(place, int) and place // SECTOR in self._sectors


class Changes:
    """What the log changes, sector by sector, in at most `seconds` of CPU."""

    def __init__(self, device: Device, layout: Geometry, seconds: float = SECONDS) -> None:
        self._device, self._layout = device, layout
        self._cancelled: Counter[int] = Counter()  # by the sector where the buffer begins
        self._transactions = self._inodes = self._buffers = 0
        self._unfinished: set[int] = set()
        self._stop = process_time() + seconds
        self._near: LRUCache[int, bool] = LRUCache(_NEAR)
        self._asked = 0
        self._fetched: dict[int, bytes] = {}  # by the byte of the disk where it begins
        self.sectors = ChangedSectors(SECTOR)

    def words(self) -> Iterator[str]:
        """Say what was done."""
        yield counted(self._transactions, "transaction")
        yield counted(self._buffers, "buffer")
        yield counted(self._inodes, "inode")
        if self._unfinished:
            what = f"{counted(len(self._unfinished), 'change')} of extents or attributes"
            yield f"but {what} had only begun: parts of files may be missing or wrong"

    def timely(self, records: Iterator[Record]) -> Iterator[Record]:
        """Give `records` while there is time."""
        for record in records:
            self._check_time()
            yield record

    def cancel(self, transaction: Transaction) -> None:
        """Note which buffers a transaction gave up."""
        for item in transaction.items:
            if kind(item) == BUFFER and buffer_flags(item) & CANCELLED:
                _, _, place, _ = _unpacked(_BUFFER, item[0])
                self._cancelled[place] += 1
        if len(self._cancelled) > CANCELLED_MAX:
            raise Damaged("log", None, f"more than {CANCELLED_MAX:,} buffers are given up")

    def fetch(self, several: Sequence[Transaction]) -> None:
        """Read what is about to be changed, in the order in which it lies on the disk.

        What changed lately lies far apart, and in the order of the log each of it were a request.
        """
        wanted, made = dict[int, int](), set[int]()
        for number, item in enumerate(item for one in several for item in one.items):
            if number % _ITEMS_TIMED == 0:
                self._check_time()
            if kind(item) == NEW_INODES:
                with suppress(Damaged):  # that is told when it is made
                    made.update(self._blocks_made(item))
            place = self._place(item)
            if place is not None and place[0] - place[0] % self._layout.block_size not in made:
                wanted.setdefault(*place)
        self._fetched, left = {}, FETCHED_MAX
        for start in sorted(wanted):
            if (start // SECTOR) not in self.sectors and left > 0:
                self._fetched[start] = self._from_disk(start, wanted[start])
                left -= wanted[start] + SECTOR

    def _place(self, item: Item) -> tuple[int, int] | None:
        """Return where what an item changes begins, and how long it is; None: nothing is read."""
        what = kind(item)
        if what == INODE:
            layout = _INODE_32 if len(item[0]) == _INODE_32.size else _INODE
            *_, place, length, within = _unpacked(layout, item[0])
            start = place * SECTOR + within - within % SECTOR
            is_right, length = 0 <= within < length * SECTOR, max(self._layout.inode_size, SECTOR)
        elif what == BUFFER and not buffer_flags(item) & (CANCELLED | BUFFER_OF_INODES):
            _, length, place, _ = _unpacked(_BUFFER, item[0])
            is_right, start, length = 0 < length <= _BUFFER_MAX, place * SECTOR, length * SECTOR
        else:
            return None
        return (start, length) if is_right and not self._cancelled.get(place) else None

    def make(self, transaction: Transaction) -> None:
        """Make the changes of one transaction."""
        self._transactions += 1
        for number, item in enumerate(transaction.items):
            if number % _ITEMS_TIMED == 0:
                self._check_time()  # a few bytes of a log can mean a lot of work
            what = kind(item)
            if what == BUFFER:
                self._buffer(item, transaction.lsn)
            elif what == INODE:
                self._inode(item, transaction.lsn)
            elif what == NEW_INODES:
                self._new_inodes(item)
            elif what in BEGUN:
                self._unfinished.add(_unpacked(_IDENTITY, item[0])[0])
            elif what in DONE:
                self._unfinished.discard(_unpacked(_IDENTITY, item[0])[0])

    def _check_time(self) -> None:
        if process_time() > self._stop:
            raise Damaged("log", None, "replaying it takes too long")

    def _buffer(self, item: Item, lsn: int) -> None:
        flags, length, place, words = _unpacked(_BUFFER, item[0])
        if flags & CANCELLED:
            self._cancelled[place] = max(0, self._cancelled[place] - 1)
            return
        if self._cancelled.get(place) or flags & BUFFER_OF_INODES:
            return
        is_right = 0 < length <= _BUFFER_MAX and words <= _WORDS_MAX
        if not is_right or _BUFFER.size + 4 * words > len(item[0]):
            raise Damaged("log", None, f"a buffer of {length} sectors")
        data = bytearray(self._read(place * SECTOR, length * SECTOR))
        if self._layout.is_v5 and block_lsn(data, self._layout.meta_uuid) >= lsn:
            return
        words_of_map = item[0][_BUFFER.size : _BUFFER.size + 4 * words]
        patch(data, int.from_bytes(words_of_map, "little"), item[1:])
        if buffer_kind(flags) == TREE_BLOCK and not is_read(data):
            return
        self._buffers += 1
        self.sectors.put(place, bytes(data))
        if place == 0:  # the superblock: the file system may have been enlarged
            changed = Overlay(self._device, SECTOR, {0: self.sectors[0]})
            self._layout = geometry(changed, unsealed=True)

    def _inode(self, item: Item, lsn: int) -> None:
        layout = _INODE_32 if len(item[0]) == _INODE_32.size else _INODE
        fields, _, _, number, rest, place, length, within = _unpacked(layout, item[0])
        if self._cancelled.get(place):
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
            self.sectors.put(start // SECTOR, bytes(data))

    def _new_inodes(self, item: Item) -> None:
        group, block, count, _, _, generation = _unpacked(_NEW_INODES, item[0])
        places = [start // SECTOR for start in self._blocks_made(item)]
        if any(self._cancelled.get(place) for place in places):
            return
        layout = self._layout
        first = (group << layout.ag_block_bits | block) << layout.inode_bits
        self.sectors.put(places[0], new_inodes(first, count, generation, layout))

    def _blocks_made(self, item: Item) -> range:
        """Return where the blocks of new inodes begin, in bytes."""
        group, block, count, size, length, _ = _unpacked(_NEW_INODES, item[0])
        layout = self._layout
        start = layout.block_at(group << layout.ag_block_bits | block)
        stop = start + length * layout.block_size
        if size != layout.inode_size or not 0 < count * size == stop - start <= _NEW_INODES_MAX:
            raise Damaged("log", start, f"{count} new inodes in {length} blocks")
        return range(start, stop, layout.block_size)

    def _read(self, start: int, length: int) -> bytes:
        data, present = self.sectors.found(start // SECTOR, length // SECTOR)
        if present == (1 << length // SECTOR) - 1:
            return data
        read = self._fetched.get(start, b"")
        if len(read) != length:
            read = self._from_disk(start, length)
        if not present:
            return read
        return b"".join(
            (data if present >> at & 1 else read)[at * SECTOR : (at + 1) * SECTOR]
            for at in range(length // SECTOR)
        )

    def _from_disk(self, start: int, length: int) -> bytes:
        stretch = start // STRETCH
        if self._near.get(stretch) is None:  # it must be asked of the store
            self._near[stretch] = True
            self._asked += 1
            if self._asked > STRETCHES_MAX:
                raise Damaged("log", None, f"it changes more than {STRETCHES_MAX:,} places")
        return read_exactly(self._device, start, length, "log")


def _unpacked(layout: Struct, region: bytes) -> tuple[Any, ...]:
    if len(region) < layout.size:
        raise Damaged("log", None, "an item is cut off")
    return layout.unpack_from(region)

"""The transactions in the log of XFS: put together from the operations of its records."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import TypeAlias

from backgate.fs.volumes.xfs_log_records import Record
from backgate.gateway.errors import Damaged

INODE, BUFFER, NEW_INODES = 0x123B, 0x123C, 0x123F  # types of items
BEGUN, DONE = (0x1244, 0x1248, 0x1246), (0x1245, 0x1249, 0x1247)  # extents, and attributes, later
BUFFER_OF_INODES, CANCELLED = 0x1, 0x2  # flags of a buffer
TREE_BLOCK = 4  # a kind of buffer
HELD_MAX = 384 << 20  # bytes of transactions that are read at a time; one may have 64 MiB

_OPERATION = Struct(">IIBB2x")
_START, _COMMIT, _CONTINUED, _CONTINUES, _END, _UNMOUNT = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
_HEADER_MAGIC, _HEADER_SIZE = b"NART", 16  # little-endian
_ITEM = Struct("<HH")  # its type, and how many regions it has
_REGIONS_MAX = 1 << 10
_REGION_MAX = 1 << 18  # bytes; four times the longest
_OPENED_MAX = 1 << 10  # transactions; the kernel writes a few at a time
_REGION_COST = 120  # bytes of memory beside its own
_BEGIN = Struct("<H2xH")  # its type, and of a buffer its flags
_KIND_SHIFT = 11
_NOT_NEEDED = {1, 2, 3, 5, 6, 7, 12}  # kinds of buffers: quotas, free space, free inodes
_NEEDED = {INODE, NEW_INODES, *BEGUN, *DONE}

Item: TypeAlias = list[bytes]  # its regions; the first says what it is
Wanted: TypeAlias = Callable[[bytes], bool]  # tells from what there is of its first region


@dataclass(slots=True)
class Transaction:
    """The items of a transaction that are wanted, in the order in which they are replayed."""

    lsn: int  # of the record in which it began
    header: bytes = b""
    items: list[Item] = field(default_factory=list)
    size: int = 0  # bytes in memory, more or less
    _lacking: int = 0  # regions of the last item
    _is_kept: bool = True  # the last item: it is wanted

    def add(self, region: bytes, wanted: Wanted) -> None:
        """Take the next region; the first is the header, which may come in pieces."""
        if self._lacking:
            self._lacking -= 1
            if self._is_kept:
                self.items[-1].append(region)
                self.size += len(region) + _REGION_COST
        elif len(self.header) < _HEADER_SIZE:
            self._begin(region)
        else:
            count = _ITEM.unpack_from(region)[1] if len(region) >= _ITEM.size else 0
            if not 0 < count <= _REGIONS_MAX:
                raise Damaged("log", None, "an item that does not hold together")
            self._lacking, self._is_kept = count - 1, wanted(region)
            if self._is_kept:
                self.items.append([region])
                self.size += len(region) + 2 * _REGION_COST

    def go_on(self, region: bytes) -> None:
        """Take the rest of a region that did not fit into a record."""
        if len(self.header) < _HEADER_SIZE:
            self._begin(region)
        elif self._is_kept and self.items:
            item = self.items[-1]
            item[-1] += region
            self.size += len(region)
            if len(item[-1]) > _REGION_MAX:
                raise Damaged("log", None, f"a region of {len(item[-1])} bytes")

    def _begin(self, region: bytes) -> None:
        self.header += region
        if not self.header.startswith(_HEADER_MAGIC[: len(self.header)]):
            raise Damaged("log", None, "a transaction without a header")
        if len(self.header) > _HEADER_SIZE:
            raise Damaged("log", None, "the header of a transaction does not hold together")


def kind(item: Item) -> int:
    """Return what an item is of."""
    return int(_ITEM.unpack_from(item[0])[0])


def buffer_flags(item: Item) -> int:
    """Return the flags of a buffer."""
    if len(item[0]) < _BEGIN.size:
        raise Damaged("log", None, "a buffer that does not hold together")
    return int(_BEGIN.unpack_from(item[0])[1])


def buffer_kind(flags: int) -> int:
    """Return what a buffer is of, from its flags."""
    return flags >> _KIND_SHIFT


def is_cancelled(region: bytes) -> bool:
    """Tell of an item whether it says that a buffer was given up; True where it cannot be told."""
    if len(region) < _BEGIN.size:
        return True
    what, flags = _BEGIN.unpack_from(region)
    return what == BUFFER and bool(flags & CANCELLED)


def is_needed(region: bytes) -> bool:
    """Tell of an item whether a reader needs what it says; True where it cannot be told."""
    if len(region) < _BEGIN.size:
        return True
    what, flags = _BEGIN.unpack_from(region)
    if what != BUFFER:
        return what in _NEEDED
    is_changed = not flags & BUFFER_OF_INODES and buffer_kind(flags) not in _NOT_NEEDED
    return is_changed or bool(flags & CANCELLED)


def transactions(records: Iterable[Record], wanted: Wanted) -> Iterator[Transaction]:
    """Give the committed transactions in the order of their commits, with the items `wanted`."""
    opened: dict[int, Transaction] = {}
    for record in records:
        for identity, flags, region in _operations(record):
            transaction = opened.get(identity)
            if transaction is None:
                if flags & _START:
                    opened[identity] = Transaction(record.lsn)
                    if len(opened) > _OPENED_MAX:
                        raise Damaged("log", None, f"{len(opened)} transactions at a time")
                continue
            flags &= ~_END
            if flags in (0, _CONTINUED):
                if region:
                    transaction.add(region, wanted)
            elif flags & _CONTINUES:
                transaction.go_on(region)
            elif flags in (_COMMIT, _UNMOUNT):
                del opened[identity]
                if flags == _COMMIT:
                    transaction.items.sort(key=_turn)
                    yield transaction
            else:
                raise Damaged("log", None, f"an operation with flags {flags:#x}")
        if sum(one.size for one in opened.values()) > HELD_MAX:
            raise Damaged("log", None, f"transactions of more than {HELD_MAX >> 20} MiB")


def _operations(record: Record) -> Iterator[tuple[int, int, bytes]]:
    data, at = record.data, 0
    for _ in range(record.operations):
        if at + _OPERATION.size > len(data):
            raise Damaged("log", None, "a record ends before its operations do")
        identity, length, _, flags = _OPERATION.unpack_from(data, at)
        start = at + _OPERATION.size
        at = start + length
        if at > len(data):
            raise Damaged("log", None, "an operation goes on beyond its record")
        yield identity, flags, data[start:at]


def _turn(item: Item) -> int:
    """Buffers come before what refers to them, buffers of inodes and cancellations after it."""
    what = kind(item)
    if what == NEW_INODES:
        return 0
    if what != BUFFER:
        return 1
    flags = buffer_flags(item)
    return 3 if flags & CANCELLED else 2 if flags & BUFFER_OF_INODES else 0

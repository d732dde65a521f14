"""The transactions in the log of XFS: put together from the operations of its records."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import TypeAlias

from backgate.fs.volumes.xfs_log_records import Record
from backgate.gateway.errors import Damaged

INODE, BUFFER, NEW_INODES = 0x123B, 0x123C, 0x123F  # types of items
MAP_BEGUN, MAP_DONE = 0x1244, 0x1245  # a change of a file's extents, to be finished later
BUFFER_OF_INODES, CANCELLED = 0x1, 0x2  # flags of a buffer

_OPERATION = Struct(">IIBB2x")
_START, _COMMIT, _CONTINUED, _CONTINUES, _END, _UNMOUNT = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
_HEADER_MAGIC, _HEADER_SIZE = b"NART", 16  # little-endian
_ITEM = Struct("<HH")  # its type, and how many regions it has
_REGIONS_MAX = 1 << 10
_BUFFER_FLAGS = Struct("<4xH")

Item: TypeAlias = list[bytes]  # its regions; the first says what it is


@dataclass(slots=True)
class Transaction:
    """The items of a transaction, in the order in which they are replayed."""

    lsn: int  # of the record in which it began
    header: bytes = b""
    items: list[Item] = field(default_factory=list)

    def add(self, region: bytes) -> None:
        """Take the next region; the first is the header, which may come in pieces."""
        if len(self.header) < _HEADER_SIZE:
            self.header += region
            if not self.header.startswith(_HEADER_MAGIC[: len(self.header)]):
                raise Damaged("log", None, "a transaction without a header")
            if len(self.header) > _HEADER_SIZE:
                raise Damaged("log", None, "the header of a transaction does not hold together")
        elif self.items and len(self.items[-1]) < _ITEM.unpack_from(self.items[-1][0])[1]:
            self.items[-1].append(region)
        else:
            if len(region) < _ITEM.size or not 0 < _ITEM.unpack_from(region)[1] <= _REGIONS_MAX:
                raise Damaged("log", None, "an item that does not hold together")
            self.items.append([region])

    def go_on(self, region: bytes) -> None:
        """Take the rest of a region that did not fit into a record."""
        if self.items:
            self.items[-1][-1] += region
        else:
            self.add(region)


def kind(item: Item) -> int:
    """Return what an item is of."""
    return int(_ITEM.unpack_from(item[0])[0])


def buffer_flags(item: Item) -> int:
    """Return the flags of a buffer."""
    if len(item[0]) < _BUFFER_FLAGS.size:
        raise Damaged("log", None, "a buffer that does not hold together")
    return int(_BUFFER_FLAGS.unpack_from(item[0])[0])


def transactions(records: Iterable[Record]) -> Iterator[Transaction]:
    """Give the committed transactions in the order of their commits."""
    opened: dict[int, Transaction] = {}
    for record in records:
        for identity, flags, region in _operations(record):
            transaction = opened.get(identity)
            if transaction is None:
                if flags & _START:
                    opened[identity] = Transaction(record.lsn)
                continue
            flags &= ~_END
            if flags & _CONTINUES:
                transaction.go_on(region)
            elif flags in (0, _CONTINUED):
                if region:
                    transaction.add(region)
            elif flags in (_COMMIT, _UNMOUNT):
                del opened[identity]
                if flags == _COMMIT:
                    transaction.items.sort(key=_turn)
                    yield transaction
            else:
                raise Damaged("log", None, f"an operation with flags {flags:#x}")


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

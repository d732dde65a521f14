"""Where an ext3 or ext4 file system keeps its journal: the blocks of a hidden inode."""

from bisect import bisect_right
from struct import Struct, unpack_from
from typing import NamedTuple

from backgate.fs.volume import Device
from backgate.fs.volumes.reading import read_exactly
from backgate.gateway.errors import Damaged

SUPER_AT, SUPER_SIZE = 1024, 1024  # bytes
EXT_MAGIC = 0xEF53
HAS_JOURNAL = 0x4  # compatible feature
NEEDS_RECOVERY, WITH_64BIT = 0x4, 0x80  # incompatible features
WITH_INLINE_DATA = 0x8000
WITH_CHECKSUMS = 0x400  # read-only compatible feature
LARGEST_LOG_BLOCK = 6  # 1024 << 6 is 64 KiB, the largest block there is
RUNS_MAX = 1 << 16  # a journal of a fresh file system lies in one to some dozens
NODES_MAX = 1 << 14  # blocks of the extent tree, or of indirect blocks
DEPTH_MAX = 5  # of an extent tree

_WORD = Struct("<I")
_EXTENT_MAGIC, _EXTENTS_FLAG = 0xF30A, 0x80000
_EXTENT_SIZE, _LONGEST_EXTENT = 12, 0x8000
_DIRECT, _INDIRECT = 12, 3
_DESCRIPTOR, _WIDE_DESCRIPTOR, _INODE = 32, 64, 128  # bytes


class Run(NamedTuple):
    """Blocks of the journal that follow each other on the device too."""

    first: int  # block of the journal
    length: int  # blocks
    block: int  # of the device


class JournalPlace:
    """The blocks of a journal by their number in it."""

    def __init__(self, block_size: int, runs: list[Run]) -> None:
        self.block_size = block_size  # bytes
        self._runs = sorted(runs)
        self._firsts = [run.first for run in self._runs]
        self.count = 0  # blocks from the first on, without a gap
        for run in self._runs:
            if run.first != self.count:
                break
            self.count += run.length

    def block(self, number: int) -> int:
        """Return which block of the device is `number` of the journal, which it must have."""
        run = self._runs[bisect_right(self._firsts, number) - 1]
        return run.block + number - run.first


def superblock(device: Device) -> bytes | None:
    """Return the superblock of an ext2, ext3 or ext4 file system; None where there is none."""
    if device.size < SUPER_AT + SUPER_SIZE:
        return None
    data = device.read_at(SUPER_AT, SUPER_SIZE)
    if len(data) < SUPER_SIZE or unpack_from("<H", data, 0x38)[0] != EXT_MAGIC:
        return None
    return data


def has_journal(superblock: bytes) -> bool:
    """Tell whether there is a journal at all: ext2 has none."""
    return bool(_WORD.unpack_from(superblock, 0x5C)[0] & HAS_JOURNAL)


def needs_recovery(superblock: bytes) -> bool:
    """Tell whether the file system was in use, so that its journal has to be looked at."""
    return bool(_WORD.unpack_from(superblock, 0x60)[0] & NEEDS_RECOVERY)


def proves_inodes(superblock: bytes) -> bool:
    """Tell whether an inode is enough to prove what became of its file.

    It is when it has a checksum. With inline data it is not: what grows out of an inode goes into
    a block by way of the journal, and is not there yet when the inode is committed fast.
    """
    incompatible, read_only = unpack_from("<II", superblock, 0x60)
    return bool(read_only & WITH_CHECKSUMS and not incompatible & WITH_INLINE_DATA)


def was_unmounted(superblock: bytes) -> bool:
    """Tell whether the last who used it said goodbye; with a journal this means nothing."""
    return bool(unpack_from("<H", superblock, 0x3A)[0] & 1)


def has_errors(superblock: bytes) -> bool:
    """Tell whether who used the file system found errors that nobody has mended since."""
    return bool(unpack_from("<H", superblock, 0x3A)[0] & 2)


def journal_place(device: Device, superblock: bytes) -> JournalPlace:
    """Find the blocks of the journal; `Damaged` where it is elsewhere or cannot be found."""
    log_block = _WORD.unpack_from(superblock, 0x18)[0]
    number, other_device = unpack_from("<II", superblock, 0xE0)
    if not number or other_device:
        raise Damaged("journal", None, "it lies on another device, which is not supported")
    if log_block > LARGEST_LOG_BLOCK:
        raise Damaged("superblock", SUPER_AT, f"blocks of 1024 << {log_block} bytes")
    block_size = 1024 << log_block
    inode = _journal_inode(device, superblock, block_size, number)
    walk = _Walk(device, block_size, _size(inode) // block_size)
    if _WORD.unpack_from(inode, 32)[0] & _EXTENTS_FLAG:
        walk.extents(inode[40:100], depth=None)
    else:
        walk.pointers(inode[40:100])
    return JournalPlace(block_size, walk.runs)


def _size(inode: bytes) -> int:
    return int(_WORD.unpack_from(inode, 4)[0] | _WORD.unpack_from(inode, 108)[0] << 32)


def _journal_inode(device: Device, superblock: bytes, block_size: int, number: int) -> bytes:
    per_group = _WORD.unpack_from(superblock, 0x28)[0]
    if number > per_group:
        raise Damaged("superblock", SUPER_AT, f"the journal is said to be inode {number}")
    revision = _WORD.unpack_from(superblock, 0x4C)[0]
    inode_size = unpack_from("<H", superblock, 0x58)[0] if revision else _INODE
    if inode_size < _INODE:
        raise Damaged("superblock", SUPER_AT, f"inodes of {inode_size} bytes")
    # Group 0 is described in the block after the superblock, with or without meta_bg.
    at = (SUPER_AT // block_size + 1) * block_size
    wide = _WORD.unpack_from(superblock, 0x60)[0] & WITH_64BIT
    descriptor = read_exactly(device, at, _WIDE_DESCRIPTOR, "group descriptor")
    table = _WORD.unpack_from(descriptor, 8)[0]
    if wide and unpack_from("<H", superblock, 0xFE)[0] > _DESCRIPTOR:
        table |= _WORD.unpack_from(descriptor, 0x28)[0] << 32
    at = table * block_size + (number - 1) * inode_size
    return read_exactly(device, at, _INODE, "journal inode")


class _Walk:
    """Collects the runs of an inode of `count` blocks."""

    def __init__(self, device: Device, block_size: int, count: int) -> None:
        self._device, self._block_size, self._count = device, block_size, count
        self._nodes = self._numbered = 0
        self.runs: list[Run] = []

    def extents(self, node: bytes, depth: int | None) -> None:
        magic, entries, _, own_depth = unpack_from("<HHHH", node)
        if magic != _EXTENT_MAGIC or own_depth > DEPTH_MAX or depth not in (None, own_depth):
            raise Damaged("journal inode", None, "its extent tree does not hold together")
        entries = min(entries, len(node) // _EXTENT_SIZE - 1)
        for at in range(_EXTENT_SIZE, (entries + 1) * _EXTENT_SIZE, _EXTENT_SIZE):
            if own_depth:
                _, low, high = unpack_from("<IIH", node, at)
                self.extents(self._node(high << 32 | low), own_depth - 1)
            else:
                first, length, high, low = unpack_from("<IHHI", node, at)
                if length > _LONGEST_EXTENT:  # written to it by the kernel all the same
                    length -= _LONGEST_EXTENT
                self._add(first, length, high << 32 | low)

    def pointers(self, node: bytes) -> None:
        direct = unpack_from(f"<{_DIRECT + _INDIRECT}I", node)
        for block in direct[:_DIRECT]:
            self._next(block)
        for level, block in enumerate(direct[_DIRECT:]):
            self._indirect(block, level)

    def _indirect(self, block: int, level: int) -> None:
        if self._numbered >= self._count:
            return
        for (pointer,) in _WORD.iter_unpack(self._node(block)):
            if self._numbered >= self._count:
                return
            if level:
                self._indirect(pointer, level - 1)
            else:
                self._next(pointer)

    def _next(self, block: int) -> None:
        if self._numbered < self._count:
            self._add(self._numbered, 1, block)
            self._numbered += 1

    def _node(self, block: int) -> bytes:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise Damaged("journal inode", None, "its tree of blocks has no end")
        return read_exactly(
            self._device, block * self._block_size, self._block_size, "journal inode"
        )

    def _add(self, first: int, count: int, block: int) -> None:
        if (block + count) * self._block_size > self._device.size or not block:
            raise Damaged("journal inode", None, f"block {block} is not of this volume")
        last = self.runs[-1] if self.runs else None
        if last and first == last.first + last.length and block == last.block + last.length:
            self.runs[-1] = last._replace(length=last.length + count)
        elif len(self.runs) >= RUNS_MAX:
            raise Damaged("journal inode", None, f"the journal lies in more than {RUNS_MAX} pieces")
        else:
            self.runs.append(Run(first, count, block))

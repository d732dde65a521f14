"""Where the blocks of an XFS file, directory or attribute fork lie."""

from bisect import bisect_right
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import pairwise
from struct import Struct
from typing import NamedTuple

from cachetools import LRUCache

from backgate.fs.volume import Device
from backgate.fs.volumes.checksums import crc32c_around
from backgate.fs.volumes.reading import read_exactly
from backgate.fs.volumes.xfs_geometry import Geometry
from backgate.fs.volumes.xfs_inode import EXTENTS, TREE, Fork, Inode
from backgate.gateway.errors import Damaged

MAGICS = (b"BMAP", b"BMA3")
CRC_AT = 64  # of a block of the tree
DEPTH_MAX = 9  # of the tree; the kernel's own limit
_LEAVES_KEPT = 128  # of at most some thousand extents each
_RECORD, _POINTER = Struct(">QQ"), Struct(">Q")
_HEADER, _ADDRESS, _OWNER = Struct(">4sHH"), Struct(">24xQ"), Struct(">56xQ")
_ROOT = Struct(">HH")
SECTOR = 512  # bytes; addresses in headers count them
_UNWRITTEN = 1 << 63
_FIRST_BITS, _BLOCK_BITS, _COUNT_BITS = 54, 52, 21


class Mapped(NamedTuple):
    """Blocks of a fork that lie one after another on the device."""

    first: int  # block of the fork
    block: int  # of the file system
    length: int  # blocks
    is_unwritten: bool  # allocated, and reads as zeros

    @property
    def stop(self) -> int:
        return self.first + self.length


class ExtentMaps:
    """The maps of all forks; of the trees no more is read than what is asked for.

    A node below another begins with just the key that leads to it, and keys ascend: so no block is
    met twice, and no tree is endless. The checksums of blocks that begin at bytes `unsealed` of the
    device are older than they are.
    """

    def __init__(self, device: Device, layout: Geometry, unsealed: Container[int]) -> None:
        self._device, self._layout, self._unsealed = device, layout, unsealed
        self._leaves: LRUCache[tuple[int, int], list[Mapped]] = LRUCache(_LEAVES_KEPT)

    def mapped(self, inode: Inode, fork: Fork, start: int, stop: int) -> Iterator[Mapped]:
        """Give what is mapped of the blocks `[start, stop)` of a fork, in order, not clipped."""
        if fork.format == EXTENTS:
            size = fork.extents * _RECORD.size
            if size > len(fork.data):
                raise Damaged(inode.where, None, f"{fork.extents} extents do not fit into it")
            yield from _within(self._records(inode, fork.data[:size]), start, stop)
        elif fork.format == TREE:
            seen = 0
            for record in _Walk(self, inode, start, stop).below_root(fork.data):
                if record.first < seen:
                    raise Damaged(inode.where, None, "its extents overlap")
                seen = record.stop
                yield record
        else:
            raise Damaged(inode.where, None, f"a fork of format {fork.format} holds no blocks")

    def leaf(self, inode: Inode, block: int) -> list[Mapped]:
        """Return the extents in one leaf of a tree, at least one."""
        found = self._leaves.get((inode.number, block))
        if found is None:
            data, count = self._block(inode, block, 0)
            header = self._layout.tree_header
            found = self._records(inode, data[header : header + count * _RECORD.size])
            self._leaves[inode.number, block] = found
        return found

    def node(self, inode: Inode, block: int, level: int) -> tuple[tuple[int, ...], bytes]:
        """Return the keys of another block of a tree, at least one, and the pointers."""
        data, count = self._block(inode, block, level)
        header = self._layout.tree_header
        room = (len(data) - header) // (2 * _POINTER.size)
        if count > room:
            raise Damaged(inode.where, None, f"a block of {count} blocks of its extents")
        return Struct(f">{count}Q").unpack_from(data, header), data[header + room * _POINTER.size :]

    def _block(self, inode: Inode, number: int, level: int) -> tuple[bytes, int]:
        layout = self._layout
        at = layout.block_at(number)
        data = read_exactly(self._device, at, layout.block_size, inode.where)
        magic, own_level, count = _HEADER.unpack_from(data)
        if magic != MAGICS[layout.is_v5] or own_level != level:
            raise Damaged(inode.where, at, "the tree of its extents does not hold together")
        if layout.is_v5:
            crc = int.from_bytes(data[CRC_AT : CRC_AT + 4], "little")
            if at not in self._unsealed and crc32c_around(data, CRC_AT) != crc:
                raise Damaged(inode.where, at, "a block of its extents has a wrong checksum")
            owner, address = _OWNER.unpack_from(data)[0], _ADDRESS.unpack_from(data)[0]
            if owner != inode.number or address * SECTOR != at:
                raise Damaged(inode.where, at, "a block of its extents is that of another file")
        if not 0 < count * _RECORD.size <= len(data) - layout.tree_header:
            raise Damaged(inode.where, at, f"a block of {count} extents")
        return data, count

    def _records(self, inode: Inode, data: bytes) -> list[Mapped]:
        records, stop = [], 0
        for high, low in _RECORD.iter_unpack(data):
            first = (high & (_UNWRITTEN - 1)) >> 9
            block = (high & 0x1FF) << (_BLOCK_BITS - 9) | low >> _COUNT_BITS
            count = low & ((1 << _COUNT_BITS) - 1)
            if first < stop or not count or not self._layout.has_block(block, count):
                raise Damaged(inode.where, None, f"an extent from block {first} cannot be")
            stop = first + count
            records.append(Mapped(first, block, count, bool(high & _UNWRITTEN)))
        return records


@dataclass(frozen=True, slots=True)
class _Walk:
    """One way through the tree of a fork, for the blocks `[start, stop)`."""

    maps: ExtentMaps
    inode: Inode
    start: int
    stop: int

    def below_root(self, root: bytes) -> Iterator[Mapped]:
        level, count = _ROOT.unpack_from(root) if len(root) >= _ROOT.size else (0, 0)
        room = (len(root) - _ROOT.size) // (2 * _POINTER.size)
        if not 1 <= level <= DEPTH_MAX or count > room:
            raise Damaged(self.inode.where, None, "the root of its extents does not hold together")
        keys = Struct(f">{count}Q").unpack_from(root, _ROOT.size)
        yield from self._below(level, keys, root[_ROOT.size + room * _POINTER.size :])

    def _below(self, level: int, keys: tuple[int, ...], pointers: bytes) -> Iterator[Mapped]:
        if any(key >= following for key, following in pairwise(keys)):
            raise Damaged(self.inode.where, None, "the tree of its extents is out of order")
        for index in range(max(0, bisect_right(keys, self.start) - 1), len(keys)):
            if keys[index] >= self.stop:
                return
            (block,) = _POINTER.unpack_from(pointers, index * _POINTER.size)
            if level == 1:
                records = self.maps.leaf(self.inode, block)
                self._check(records[0].first, keys[index])
                yield from _within(records, self.start, self.stop)
            else:
                its_keys, its_pointers = self.maps.node(self.inode, block, level - 1)
                self._check(its_keys[0], keys[index])
                yield from self._below(level - 1, its_keys, its_pointers)

    def _check(self, first: int, key: int) -> None:
        if first != key:
            raise Damaged(self.inode.where, None, "the tree of its extents leads astray")


def _within(records: list[Mapped], start: int, stop: int) -> Iterator[Mapped]:
    index = max(0, bisect_right(records, start, key=_first) - 1)
    for record in records[index:] if index else records:
        if record.first >= stop:
            return
        if record.stop > start:
            yield record


def _first(record: Mapped) -> int:
    return record.first

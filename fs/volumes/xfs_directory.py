"""Directories of XFS: in the inode, in one block, or in many blocks with an index by hash."""

from bisect import bisect_left
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from backgate.fs.volumes.xfs_blocks import ForkBlocks, Seal
from backgate.fs.volumes.xfs_extents import ExtentMaps
from backgate.fs.volumes.xfs_geometry import Geometry
from backgate.fs.volumes.xfs_inode import LOCAL, Inode
from backgate.gateway.errors import Damaged

_INDEX_AT = 1 << 35  # bytes of a directory before its index
_NODES_MAX = 5  # of the index, one below another: the kernel's own limit
_SEARCHED_MAX = 1 << 14  # blocks that are searched for one name: some million names
_SIBLINGS_MAX = 1 << 16  # leaves of the index with names of one hash

_BLOCK_MAGICS, _DATA_MAGICS = (b"XD2B", b"XDB3"), (b"XD2D", b"XDD3")  # version 4, 5
_NODE_MAGICS = (b"\xfe\xbe", b"\x3e\xbe")
_LEAF_MAGICS = ((b"\xd2\xf1", b"\xd2\xff"), (b"\x3d\xf1", b"\x3d\xff"))  # the only one, one of many
_DATA_SEAL = Seal(crc=4, address=8, owner=40)
_INDEX_SEAL = Seal(crc=12, address=16, owner=48)
_DATA_HEADER, _INDEX_HEADER = (16, 64), (16, 64)  # bytes, version 4, 5
_INDEX_COUNT = (12, 56)

_ENTRY, _FREE, _TAG = Struct(">QB"), Struct(">HH"), Struct(">H")
_TAIL, _PAIR, _FORWARD = Struct(">II"), Struct(">II"), Struct(">I")
_FREE_TAG = 0xFFFF
_SHORT_NUMBER = (4, 8)
_NUMBER_MASK = (1 << 56) - 1
# Where case is ignored the kernel takes a name's bytes for Latin-1, mkfs.xfs for ASCII.
_LOWER_AS_THE_KERNEL = bytes(
    byte + 32 if 0x41 <= byte <= 0x5A or (0xC0 <= byte <= 0xDE and byte != 0xD7) else byte
    for byte in range(256)
)
_DOTS = (b".", b"..")  # which are entries like others, except in an inode
_ALIGNMENT = 8  # bytes; addresses in the index count them


class Named(NamedTuple):
    """One entry of a directory."""

    name: bytes
    number: int  # of the inode


class Directories:
    """The directories of one file system.

    `parent` is the directory through which one was reached: whatever says that it is elsewhere is
    refused, so that no walk goes round in a circle.
    """

    def __init__(self, layout: Geometry, maps: ExtentMaps, blocks: ForkBlocks) -> None:
        self._layout, self._maps, self._blocks = layout, maps, blocks
        self._per_block = layout.directory_block_size // layout.block_size
        self._type_size = int(layout.has_file_types)

    def pages(self, inode: Inode, parent: int, start: int) -> Iterator[tuple[list[Named], int]]:
        """Give the entries block by block from block `start` on, each with the number to go on."""
        if inode.data.format == LOCAL:
            if start == 0:
                yield self._short(inode, parent), 1
            return
        if start == 0:
            self._check_parent(inode, parent)
        for number in self._data_blocks(inode, start):
            yield self._named(inode, number), number + 1

    def number(self, inode: Inode, parent: int, name: bytes) -> int | None:
        """Return the number of the inode called `name`; None when there surely is none."""
        if name in _DOTS:
            return None
        if inode.data.format == LOCAL:
            return next((e.number for e in self._short(inode, parent) if e.name == name), None)
        try:
            self._check_parent(inode, parent)
            found = (self._looked_up(inode, name, wanted) for wanted in self._hashes(name))
            return next((number for number in found if number is not None), None)
        except Damaged:  # the index, perhaps: the names themselves are what counts
            return self._searched(inode, parent, name)

    def _hashes(self, name: bytes) -> set[int]:
        """Return the hashes that a name may be filed under."""
        if not self._layout.ignores_case:
            return {_hash(name)}
        return {_hash(name.translate(_LOWER_AS_THE_KERNEL)), _hash(name.lower())}

    def _searched(self, inode: Inode, parent: int, name: bytes) -> int | None:
        for page, blocks in self.pages(inode, parent, 0):
            for entry in page:
                if entry.name == name:
                    return entry.number
            if blocks > _SEARCHED_MAX:
                raise Damaged(inode.where, None, "its index is damaged")
        return None

    def _looked_up(self, inode: Inode, name: bytes, wanted: int) -> int | None:
        for address in self._addresses(inode, wanted):
            number, at = divmod(address * _ALIGNMENT, self._layout.directory_block_size)
            found, _ = self._entry(inode, self._data(inode, number), at)
            if found.name == name:
                return found.number
        return None

    def _addresses(self, inode: Inode, wanted: int) -> Iterator[int]:
        only = self._only_block(inode)
        if only is not None:
            count = _TAIL.unpack_from(only, len(only) - _TAIL.size)[0]
            yield from _equal(only, _end(inode, only), count, wanted)[0]
            return
        block, header = self._leaf(inode, wanted), _INDEX_HEADER[self._layout.is_v5]
        for _ in range(_SIBLINGS_MAX):
            if block is None:
                return
            addresses, goes_on = _equal(block, header, self._count(inode, block), wanted)
            yield from addresses
            (following,) = _FORWARD.unpack_from(block)
            block = self._index(inode, following) if goes_on and following else None
        raise Damaged(inode.where, None, "its index has no end")

    def _leaf(self, inode: Inode, wanted: int) -> bytes | None:
        number, is_v5 = _INDEX_AT // self._layout.block_size, self._layout.is_v5
        for _ in range(_NODES_MAX + 1):
            block = self._index(inode, number)
            if block[8:10] in _LEAF_MAGICS[is_v5]:
                return block
            if block[8:10] != _NODE_MAGICS[is_v5]:
                break
            pairs = _pairs(block, _INDEX_HEADER[is_v5], self._count(inode, block))
            at = bisect_left(pairs, wanted, key=_first)
            if at == len(pairs):
                return None
            number = pairs[at][1]
        raise Damaged(inode.where, None, "its index does not hold together")

    def _index(self, inode: Inode, number: int) -> bytes:
        return self._blocks.block(inode, inode.data, number, self._per_block, _INDEX_SEAL)

    def _count(self, inode: Inode, block: bytes) -> int:
        is_v5 = self._layout.is_v5
        (count,) = _TAG.unpack_from(block, _INDEX_COUNT[is_v5])
        if _INDEX_HEADER[is_v5] + count * _PAIR.size > len(block):
            raise Damaged(inode.where, None, f"{count} names do not fit into a block of its index")
        return int(count)

    def _only_block(self, inode: Inode) -> bytes | None:
        if inode.size != self._layout.directory_block_size:
            return None
        block = self._data(inode, 0)
        return block if block.startswith(_BLOCK_MAGICS[self._layout.is_v5]) else None

    def _short(self, inode: Inode, parent: int) -> list[Named]:
        data = inode.data.data[: inode.size]
        if len(data) < 2 + _SHORT_NUMBER[0]:
            raise Damaged(inode.where, None, "a directory that is cut off")
        count, width = data[0], _SHORT_NUMBER[bool(data[1])]
        self._check_is(inode, parent, int.from_bytes(data[2 : 2 + width], "big"))
        found, at = [], 2 + width
        for _ in range(count):
            name_at = at + 3
            number_at = name_at + (data[at] if at < len(data) else 0) + self._type_size
            stop = number_at + width
            if stop > len(data):
                raise Damaged(inode.where, None, "a directory that is cut off")
            name = data[name_at : number_at - self._type_size]
            number = int.from_bytes(data[number_at:stop], "big") & _NUMBER_MASK
            found.append(self._checked(inode, name, number))
            at = stop
        return found

    def _data_blocks(self, inode: Inode, start: int) -> Iterator[int]:
        per, following = self._per_block, start
        last = _INDEX_AT // self._layout.block_size
        for record in self._maps.mapped(inode, inode.data, start * per, last):
            stop = -(-min(record.stop, last) // per)
            yield from range(max(following, record.first // per), stop)
            following = max(following, stop)

    def _data(self, inode: Inode, number: int) -> bytes:
        first = number * self._per_block
        if first * self._layout.block_size >= _INDEX_AT:
            raise Damaged(inode.where, None, "its index leads astray")
        block = self._blocks.block(inode, inode.data, first, self._per_block, _DATA_SEAL)
        is_v5 = self._layout.is_v5
        if not block.startswith((_BLOCK_MAGICS[is_v5], _DATA_MAGICS[is_v5])):
            raise Damaged(inode.where, None, f"block {number} of it holds no names")
        return block

    def _named(self, inode: Inode, number: int) -> list[Named]:
        block = self._data(inode, number)
        at, stop = _DATA_HEADER[self._layout.is_v5], _end(inode, block)
        found = []
        while at < stop:
            tag, length = _FREE.unpack_from(block, at) if at + _ALIGNMENT <= stop else (0, 0)
            if tag == _FREE_TAG:
                if length < _ALIGNMENT or length % _ALIGNMENT:
                    raise Damaged(inode.where, None, f"{length} free bytes in block {number}")
                at += length
                continue
            entry, at = self._entry(inode, block, at, stop)
            if entry.name not in _DOTS:
                found.append(entry)
        return found

    def _entry(
        self, inode: Inode, block: bytes, at: int, stop: int | None = None
    ) -> tuple[Named, int]:
        stop = len(block) if stop is None else stop
        if at + _ENTRY.size < stop:
            number, length = _ENTRY.unpack_from(block, at)
            name_at = at + _ENTRY.size
            name_stop = name_at + length
            end = at + -(-(_ENTRY.size + length + self._type_size + _TAG.size) // _ALIGNMENT) * 8
            if end <= stop and _TAG.unpack_from(block, end - _TAG.size)[0] == at:
                return self._checked(inode, block[name_at:name_stop], number), end
        raise Damaged(inode.where, None, "names in it do not hold together")

    def _checked(self, inode: Inode, name: bytes, number: int) -> Named:
        if not name or b"/" in name or b"\0" in name:
            raise Damaged(inode.where, None, f"holds the name {name!r}, which cannot be")
        if not self._layout.has_inode(number):
            raise Damaged(inode.where, None, f"{name!r} in it is inode {number}, which cannot be")
        return Named(name, number)

    def _check_parent(self, inode: Inode, parent: int) -> None:
        at = _DATA_HEADER[self._layout.is_v5]
        block = self._data(inode, 0)
        dot, at = self._entry(inode, block, at)
        dots, _ = self._entry(inode, block, at)
        if (dot.name, dots.name) != _DOTS:
            raise Damaged(inode.where, None, "does not begin as a directory does")
        self._check_is(inode, parent, dots.number)

    def _check_is(self, inode: Inode, parent: int, found: int) -> None:
        if found & _NUMBER_MASK != parent:
            raise Damaged(inode.where, None, f"says that it lies in inode {found}, not {parent}")


def _end(inode: Inode, block: bytes) -> int:
    if not block.startswith(_BLOCK_MAGICS):
        return len(block)
    end = len(block) - _TAIL.size
    end -= int(_TAIL.unpack_from(block, end)[0]) * _PAIR.size
    if end < 0:
        raise Damaged(inode.where, None, "the index of a block does not fit into it")
    return end


def _pairs(block: bytes, at: int, count: int) -> list[tuple[int, int]]:
    return list(_PAIR.iter_unpack(block[at : at + count * _PAIR.size]))


def _equal(block: bytes, at: int, count: int, wanted: int) -> tuple[list[int], bool]:
    """Return the addresses that belong to a hash, and whether the next block may have more."""
    pairs = _pairs(block, at, count)
    first = last = bisect_left(pairs, wanted, key=_first)
    while last < len(pairs) and pairs[last][0] == wanted:
        last += 1
    return [address for _, address in pairs[first:last] if address], last == len(pairs)


def _first(pair: tuple[int, int]) -> int:
    return pair[0]


def _hash(name: bytes) -> int:
    value = 0
    for byte in name:
        value = byte ^ (value << 7 & 0xFFFFFFFF | value >> 25)
    return value

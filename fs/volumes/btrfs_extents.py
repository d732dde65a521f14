"""The extents of files, and the checksums of data, while the log of a btrfs is replayed."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice
from struct import Struct
from typing import NamedTuple, TypeAlias

from fs_explorer.filesystems.btrfs.btree import Key

from backgate.fs.volumes.btrfs_data import KIND as SUMS
from backgate.fs.volumes.btrfs_data import OBJECT as SUMMED
from backgate.fs.volumes.btrfs_log import EXTENT, INODE, Log
from backgate.fs.volumes.btrfs_names import ALLOCATED, Subvolume, with_word, word
from backgate.gateway.errors import Damaged

Sums: TypeAlias = tuple[int, bytes]  # checksums, and the address from which on they are

END = 2**64 - 1  # behind any file
INLINE, REGULAR, RESERVED = 0, 1, 2  # kinds of extents
_HEAD = Struct("<8xQB3xB")  # bytes once decoded, compression, kind
_PLACE = Struct("<21xQQQQ")  # address, bytes there, where in what is decoded it begins, bytes
_CUT = Struct("<QQ")
_CUT_AT = 37


class _Extent(NamedTuple):
    kind: int
    length: int  # bytes of the file
    address: int  # 0: a hole
    stored: int  # bytes there
    skipped: int  # bytes of what is there, decoded, before its beginning
    is_compressed: bool


def _extent(item: bytes) -> _Extent:
    length, compression, kind = _HEAD.unpack_from(item)
    if kind == INLINE:
        return _Extent(kind, length, 0, 0, 0, bool(compression))
    if kind not in (REGULAR, RESERVED) or len(item) != _PLACE.size:
        raise Damaged("", None, f"the log meets an extent of kind {kind}")
    address, stored, skipped, length = _PLACE.unpack(item)
    return _Extent(kind, length, address, stored, skipped, bool(compression))


def _part(item: bytes, skip: int, length: int) -> bytes:
    """Return the item of a part of an extent."""
    extent = _extent(item)
    if extent.kind == INLINE:
        raise Damaged("", None, "the log divides an extent that lies in its item")
    cut = _CUT.pack(extent.skipped + skip, length)
    return item[:_CUT_AT] + cut + item[_CUT_AT + _CUT.size :]


class Extents:
    """Puts the extents of `log` into the files of `files`, and their checksums into `checksums`."""

    def __init__(
        self, files: Subvolume, log: Log, checksums: "Checksums", sector: int, holes: bool
    ) -> None:
        self._files, self._checksums, self._sector = files, checksums, sector
        self._has_holes = holes  # items for them: then they are kept as such
        self._logged = [
            (key[2], item) for key, item in log.items.items() if key[:2] == (SUMMED, SUMS)
        ]

    def truncate(self, number: int, size: int) -> None:
        """Drop what a file has behind the sector in which `size` lies."""
        self._allocate(number, -self._drop(number, -(-size // self._sector) * self._sector, END))

    def place(self, number: int, start: int, item: bytes) -> None:
        """Put an extent of the log where it belongs, and drop what was there."""
        key, extent = (number, EXTENT, start), _extent(item)
        before = self._files.get(key)
        if before == item and extent.kind != INLINE:
            return
        stop = start + extent.length
        if extent.kind == INLINE:
            stop = -(-stop // self._sector) * self._sector
        if not start < stop < END:
            raise Damaged("", None, f"the log has an extent of {extent.length} bytes")
        dropped = self._drop(number, start, stop)
        is_there = extent.kind == INLINE or extent.address > 0
        if is_there or self._has_holes:
            self._files.set(key, item)
        if extent.address:
            self._checksums.take(self._logged, *self._summed(extent))
        self._allocate(number, (extent.length if is_there else 0) - dropped)

    def _summed(self, extent: _Extent) -> tuple[int, int]:
        """Return the addresses, from and to, of which the log may have checksums."""
        if extent.is_compressed:
            return extent.address, extent.address + extent.stored
        start = extent.address + extent.skipped
        return start, start + extent.length

    def _allocate(self, number: int, more: int) -> None:
        if more:
            inode = self._files.inode(number)
            inode = with_word(inode, ALLOCATED, word(inode, ALLOCATED) + more)
            self._files.set((number, INODE, 0), inode)

    def _drop(self, number: int, start: int, stop: int) -> int:
        """Remove what a file has in a range; return how many bytes were stored for it."""
        found = list(self._files.items(number, EXTENT, start, stop))
        before = self._files.last((number, EXTENT, start - 1))
        dropped = 0
        for key, item in [before, *found] if before else found:
            extent = _extent(item)
            begin, end = key[2], key[2] + extent.length
            if begin < start and end <= start:
                continue
            self._cut(key, item, start, stop)
            if extent.kind == INLINE or extent.address:
                dropped += max(0, min(end, stop) - max(begin, start))
        return dropped

    def _cut(self, key: Key, item: bytes, start: int, stop: int) -> None:
        """Leave of an extent what is outside of a range."""
        begin = key[2]
        end = begin + _extent(item).length
        self._files.set(key, None)
        if begin < start < end:
            self._files.set(key, _part(item, 0, start - begin))
        if begin < stop < end:
            self._files.set((*key[:2], stop), _part(item, stop - begin, end - stop))


class Checksums:
    """The tree of checksums, as a subvolume, with those of the logs put in."""

    def __init__(self, tree: Subvolume, sector: int, width: int, nodesize: int) -> None:
        self._tree, self._sector, self._width = tree, sector, width
        self._longest = nodesize // width * sector  # bytes that one item may cover

    def take(self, logged: Sequence[Sums], start: int, stop: int) -> None:
        """Put in what `logged`, in order, has for `[start, stop)`, in place of what is there."""
        for first, sums in self._pieces(logged, start, stop):
            self._drop(first, first + self._covered(sums))
            self._tree.set((SUMMED, SUMS, first), sums)

    def _pieces(self, logged: Sequence[Sums], start: int, stop: int) -> Iterator[Sums]:
        if start % self._sector or stop % self._sector:
            raise Damaged("", None, f"the log has an extent at address {start}")
        at = bisect_left(logged, start - self._longest, key=lambda one: one[0])
        for first, sums in islice(logged, at, None):
            if first >= stop:
                return
            if start < first + self._covered(sums):
                yield max(first, start), self._between(first, sums, start, stop)

    def _drop(self, start: int, stop: int) -> None:
        first = max(0, start - self._longest)
        for key, sums in list(self._tree.items(SUMMED, SUMS, first, stop)):
            end = key[2] + self._covered(sums)
            if end <= start:
                continue
            self._tree.set(key, None)
            if key[2] < start:
                self._tree.set(key, self._between(key[2], sums, key[2], start))
            if stop < end:
                self._tree.set((SUMMED, SUMS, stop), self._between(key[2], sums, stop, end))

    def _between(self, first: int, sums: bytes, start: int, stop: int) -> bytes:
        begin = max(0, start - first) // self._sector
        return sums[begin * self._width : max(0, stop - first) // self._sector * self._width]

    def _covered(self, sums: bytes) -> int:
        return len(sums) // self._width * self._sector

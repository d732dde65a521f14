"""ext4 as its fast commits have made it: inodes, names and blocks in place of those on the disk.

No block is written for it, neither of a directory nor of extents: the kernel would choose some that
are free. What is on the disk is read as it was after the last transaction, and then changed.

Only with `metadata_csum`: the checksum of an inode is of all of it, and so proves that the part
from the commit and the part from the disk (attributes) belong together.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Any

from fs_explorer.entry import EntryType
from fs_explorer.errors import ChecksumError, CorruptDataError, FsExplorerError
from fs_explorer.io.blockmap import Extent
from fs_explorer.io.source import RandomAccess
from fs_explorer.tree import Context
from fs_explorer.tree import Node as Parsed

from backgate.fs.volumes.ext_changes import Changes
from backgate.fs.volumes.ext_checked import GENERATION_AT, CheckedExt
from backgate.fs.volumes.fast_commits import HOLE

EXTENTS, CASEFOLD = 0x80000, 0x40000000  # flags of an inode
DIRECTORY = 2  # kind of an entry of a directory
SECTOR = 512  # bytes


class ChangedExt(CheckedExt):
    """The checked reader, with changes in memory."""

    def __init__(self, access: RandomAccess, shared: Context, changes: Changes) -> None:
        super().__init__(access, shared)
        self._changes = changes

    def _parse_inode(self, number: int, raw: bytes) -> Any:
        head = self._changes.heads.get(number)
        if head is not None:
            rest = bytes(len(raw)) if self._is_new(number, raw) else raw
            raw = head + rest[len(head) :]
        return super()._parse_inode(number, raw)

    def _is_new(self, number: int, before: bytes) -> bool:
        """Tell whether an inode is of another file than the one that had its number `before`."""
        if number in self._changes.created:
            return True
        now = self._changes.heads.get(number, before)  # a file keeps its generation
        return now[GENERATION_AT : GENERATION_AT + 4] != before[GENERATION_AT : GENERATION_AT + 4]

    def _fill(self, node: Parsed, inode: Any) -> Parsed:
        node = super()._fill(node, inode)
        if not inode.links and not node.error:
            node.error = f"inode {inode.ino} is deleted, and still has a name"
        elif node.type is EntryType.DIR and inode.links > 1 and self._has_changed(inode.ino):
            node.nlink = self._links(inode)
        elif node.type is EntryType.FILE and not node.error and inode.ino in self._changes.heads:
            node.stored_size = max(inode.blocks * SECTOR, self._allocated(inode))
        return node

    def _fault(self, number: int) -> str:
        if number in self._changes.heads:
            return f"inode {number} does not fit what its fast commit says of it"
        return super()._fault(number)

    # Blocks.

    def _extent_map(self, inode: Any) -> list[Extent]:
        return self._changed(inode, super()._extent_map)

    def _indirect_map(self, inode: Any) -> list[Extent]:
        return self._changed(inode, super()._indirect_map)

    def _changed(self, inode: Any, before: Callable[[Any], list[Extent]]) -> list[Extent]:
        """Return where a file lies: as `before`, but for what its fast commits say."""
        number = inode.ino
        if number not in self._changes.heads and number not in self._changes.ranges:
            return before(inode)
        former = self._former(inode)
        extents = [] if former is None else list(before(former))
        for change in self._changes.ranges.get(number, ()):
            start, stop = change.first * self.bs, (change.first + change.length) * self.bs
            new = Extent(start, stop - start, None)
            if change.block >= 0:
                self._check_run(change.block, change.length)
                new.ra, new.roff = self.ra, change.block * self.bs
            place(extents, start, stop, [] if change.block == HOLE else [new])
        return extents

    def _former(self, inode: Any) -> Any:
        """Return an inode as it was before the fast commits; None where it was another file's."""
        number = inode.ino
        raw = self.ra.read_exact(self._inode_off(number), self.inode_size)
        if self._is_new(number, raw):
            return None
        if not self.is_right(number, raw):
            raise ChecksumError(f"inode {number} had a wrong checksum before its fast commit")
        former = super(CheckedExt, self)._parse_inode(number, raw)
        if (former.flags ^ inode.flags) & EXTENTS:
            raise self._unsure(number, "lay in another way before")
        return former

    def _symlink(self, inode: Any) -> Any:
        if self._changes.ranges.get(inode.ino):
            raise CorruptDataError(f"the target of inode {inode.ino} had not been written yet")
        return super()._symlink(inode)

    def _allocated(self, inode: Any) -> int:
        """Count what a file takes: an inode may be committed before it is told of its blocks."""
        try:
            self._data_ra(inode)  # which keeps its extents
            return sum(extent.length for extent in inode.exts or ())
        except FsExplorerError:
            return 0

    # Directories.

    def _has_changed(self, number: int) -> bool:
        return number in self._changes.names or number in self._changes.created

    def _dirents(
        self, inode: Any, keep: Callable[[bytes, int, int], bool] | None = None
    ) -> Iterator[tuple[bytes, int, int]]:
        number = inode.ino
        if not self._has_changed(number):
            yield from super()._dirents(inode, keep)
            return
        if inode.flags & CASEFOLD:
            raise self._unsure(number, "is a directory where names are alike")
        if number in self._changes.contradictory:
            raise CorruptDataError(f"the fast commits of directory {number} contradict each other")
        names = self._changes.names.get(number, {})
        if number not in self._changes.created:
            yield from self._kept(inode)
        for name, now in names.items():
            if now.inode:
                yield name, now.inode, 0

    def _kept(self, directory: Any) -> Iterator[tuple[bytes, int, int]]:
        """Give the entries of a directory that its fast commits say nothing of."""
        names = self._changes.names[directory.ino]
        for entry in super()._dirents(directory):
            name, number, _ = entry
            if name not in names:
                yield entry
            elif number not in names[name].inodes:
                raise CorruptDataError(f"the fast commits do not fit directory {directory.ino}")

    def _links(self, directory: Any) -> int:
        """Count the links of a directory: of it nothing is committed when others come or go."""
        try:
            return 2 + sum(self._is_directory(*entry) for entry in self._dirents(directory))
        except FsExplorerError:
            return int(directory.links)

    def _is_directory(self, name: bytes, number: int, kind: int) -> bool:
        if kind and self.tells_kinds:
            return kind == DIRECTORY
        return self.inode(number).type is EntryType.DIR

    def _unsure(self, number: int, what: str) -> CorruptDataError:
        return CorruptDataError(f"inode {number} {what}, and was changed by a fast commit")


def place(extents: list[Extent], start: int, stop: int, new: list[Extent]) -> None:
    """Put `new` where `[start, stop)` of a file is, among `extents` in order; cut off what was."""
    low = bisect_right(extents, start, key=lambda extent: extent.voff + extent.length)
    high = bisect_left(extents, stop, key=lambda extent: extent.voff)
    if low < high:
        first, last = extents[low], extents[high - 1]
        if first.voff < start:
            new = [Extent(first.voff, start - first.voff, first.ra, first.roff), *new]
        if last.voff + last.length > stop:
            cut = stop - last.voff
            new = [*new, Extent(stop, last.length - cut, last.ra, last.roff + cut)]
    extents[low:high] = new

"""The log trees of btrfs: what was synchronized since the last transaction was committed.

A small tree names one log for each subvolume that has one. All their blocks belong to the one
transaction that was never committed, and have a checksum each, which the library compares: what
does not fit is not believed.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import Any

from fs_explorer.filesystems.btrfs.btree import HEADER, BNode, Key

from backgate.gateway.errors import Damaged

LOG_MAX = 32 << 20  # bytes of log blocks; 30 seconds of fsync make some hundred KB
LOGS = 2**64 - 6  # the object that logs belong to, and the owner of their blocks
INODE, REF, XATTR, DIR_ITEM, DIR_INDEX, EXTENT, CHECKSUM = 1, 12, 24, 84, 96, 108, 128  # kinds
EXTENDED_REF = 13  # more names of an inode in one directory than fit into an item; not read
DIR_RANGE = 72  # a stretch of a directory's indices of which the log has all names
OLD_DIR_RANGE = 60  # the same by the hashes of names; until Linux 5.16, and nothing needs it
LAST_INDEX = 2**64 - 1
ROOT = 132
KINDS = {INODE, REF, XATTR, OLD_DIR_RANGE, DIR_RANGE, DIR_ITEM, DIR_INDEX, EXTENT, CHECKSUM}
ZONED = 0x1000  # of the incompatible features: there logs are written in another way
_GENERATION_OWNER = Struct("<80xQQ")
_POINTER = Struct("<QBQ")
_POINTER_SIZE = 33
_ROOT_GENERATION, _ROOT_BLOCK, _ROOT_LEVEL = Struct("<160xQ"), Struct("<176xQ"), 238
_ROOT_SIZE = 239  # bytes of a root item that are needed
_INDEX = Struct("<Q")


@dataclass(slots=True)
class Log:
    """What the log has of one subvolume, in the order of the keys."""

    items: dict[Key, bytes] = field(default_factory=dict)
    ranges: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # by directory, with end

    def add(self, key: Key, item: bytes) -> None:
        owner, kind, offset = key
        if kind == EXTENDED_REF:
            raise Damaged("", None, f"inode {owner} has very many names in one directory")
        if kind not in KINDS:
            raise Damaged("", None, f"an item of kind {kind} is in the log")
        if kind != CHECKSUM and (owner, INODE, 0) not in self.items and key != (owner, INODE, 0):
            raise Damaged("", None, f"an item of kind {kind} is in the log without its inode")
        if kind == DIR_RANGE:
            (last,) = _INDEX.unpack(item)
            if last < offset:
                raise Damaged("", None, "a stretch of a directory in the log ends before it begins")
            self.ranges.setdefault(owner, []).append((offset, last))
        self.items[key] = item

    def stretches(self, directory: int) -> Iterator[tuple[int, int]]:
        """Give the first and last index of each stretch of which the log has all names.

        Some lie in others: of those that begin before an index, the last one alone tells of it.
        """
        ranges, at = self.ranges.get(directory, []), 0
        while at <= LAST_INDEX:
            number = bisect_right(ranges, (at, LAST_INDEX)) - 1
            if number < 0 or ranges[number][1] < at:
                number += 1
            if number >= len(ranges):
                return
            yield ranges[number]
            at = ranges[number][1] + 1


class Logs:
    """The logs of the file system that the library opened as `tree`, read whole."""

    def __init__(self, tree: Any) -> None:
        self._trees, self._generation = tree.trees, tree.sb.generation + 1
        self._left = LOG_MAX // tree.sb.nodesize  # blocks
        if tree.sb.incompat_flags & ZONED:
            raise Damaged("", None, "a zoned file system has another kind of log")
        self.of: dict[int, Log] = {}  # by subvolume
        for key, item in self._items(tree.sb.log_root, tree.sb.log_root_level):
            if key[:2] != (LOGS, ROOT) or len(item) < _ROOT_SIZE:
                raise Damaged("", None, "the tree of logs has an item that is none of a log")
            self.of[key[2]] = self._log(item)

    def _log(self, root: bytes) -> Log:
        if _ROOT_GENERATION.unpack_from(root)[0] != self._generation:
            raise Damaged("", None, "a log is not of the transaction after the last one")
        log = Log()
        for key, item in self._items(_ROOT_BLOCK.unpack_from(root)[0], root[_ROOT_LEVEL]):
            log.add(key, item)
        return log

    def _items(self, root: int, level: int) -> Iterator[tuple[Key, bytes]]:
        """Give the items of a tree in order; `Damaged` unless all of it is right."""
        last: Key = (-1, 0, 0)
        for leaf in self._leaves(self._block(root, level)):
            for number, key in enumerate(leaf.keys):
                if key <= last:
                    raise Damaged("", None, "the log's items are not in order")
                last = key
                yield key, leaf.item(number)

    def _leaves(self, block: BNode) -> Iterator[BNode]:
        if not block.level:
            yield block
            return
        for pointer, first in zip(block.ptrs, block.keys, strict=True):
            below = self._block(pointer, block.level - 1)
            if not below.keys or below.keys[0] != first:
                raise Damaged("", None, f"log block {pointer:#x} is not what leads to it")
            yield from self._leaves(below)

    def _block(self, address: int, level: int) -> BNode:
        self._left -= 1
        if self._left < 0:
            raise Damaged("", None, f"the log has more than {LOG_MAX >> 20} MiB")
        block: BNode = self._trees.node(address, level)
        if _GENERATION_OWNER.unpack_from(block.data) != (self._generation, LOGS):
            raise Damaged("", None, f"block {address:#x} is not of this log")
        for number in range(len(block.ptrs)):
            at = HEADER + number * _POINTER_SIZE + _POINTER.size + _INDEX.size
            if _INDEX.unpack_from(block.data, at)[0] != self._generation:
                raise Damaged("", None, f"log block {address:#x} leads to another transaction")
        return block

"""The names of one btrfs subvolume while its log is replayed: each lies in three places.

A directory has an item for the hash of a name and one for its number, in the order of making; the
inode has an item of all its names in one directory, with those numbers.
"""

import stat
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from fs_explorer.filesystems.btrfs.btree import HEADER, Key

from backgate.fs.volumes.btrfs_changed import ChangedTrees, Item
from backgate.fs.volumes.btrfs_log import DIR_INDEX, DIR_ITEM, INODE, REF
from backgate.fs.volumes.checksums import plain_crc32c
from backgate.gateway.errors import Damaged

TOP = 256  # inode of the top directory of a subvolume
INODE_SIZE = 160  # bytes
GENERATION, SIZE, ALLOCATED = 0, 16, 24  # where they lie in an inode, 8 bytes each
LINKS, MODE = 40, 52  # 4 bytes each
DIRECTORY = 2  # kind of a name
_KINDS = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}
_NAME_SEED = 0xFFFF_FFFE
_ENTRY = Struct("<QBQQHHB")  # what it leads to (a key), transaction, bytes of data, of name, kind
_REF = Struct("<QH")
_ITEM_HEAD = 25  # bytes
_WORDS = {4: Struct("<I"), 8: Struct("<Q")}


class Entry(NamedTuple):
    """A name in an item of a directory, or of an extended attribute."""

    target: Key
    kind: int
    name: bytes
    raw: bytes  # all of it


class Ref(NamedTuple):
    """A name in an item of the inode that it leads to."""

    number: int  # in the order of the directory
    name: bytes


def entries(item: bytes | None) -> list[Entry]:
    """Return the names in an item; none where there is no item."""
    found, at, item = list[Entry](), 0, item or b""
    while at < len(item):
        *target, _, data, length, kind = _ENTRY.unpack_from(item, at)
        start = at + _ENTRY.size
        stop = start + length + data
        if stop > len(item):
            raise Damaged("", None, "a name is longer than its item")
        name = item[start : start + length]
        found.append(Entry((target[0], target[1], target[2]), kind, name, item[at:stop]))
        at = stop
    return found


def refs(item: bytes | None) -> list[Ref]:
    """Return the names in an item of an inode; none where there is no item."""
    found, at, item = list[Ref](), 0, item or b""
    while at < len(item):
        index, length = _REF.unpack_from(item, at)
        at += _REF.size + length
        if at > len(item):
            raise Damaged("", None, "a name is longer than its item")
        found.append(Ref(index, item[at - length : at]))
    return found


def hashed(name: bytes) -> int:
    """Return the last part of the key under which a directory, or an inode, has a name."""
    return plain_crc32c(name, _NAME_SEED)


def word(item: bytes, at: int, size: int = 8) -> int:
    """Return a number in an inode."""
    return int(_WORDS[size].unpack_from(item, at)[0])


def with_word(item: bytes, at: int, number: int, size: int = 8) -> bytes:
    """Return the inode with another number there."""
    if not 0 <= number < 1 << 8 * size:
        raise Damaged("", None, f"the log makes a number in an inode {number}")
    return item[:at] + _WORDS[size].pack(number) + item[at + size :]


class Subvolume:
    """The items of the subvolume whose tree has its root at `root`; changed in `trees` only."""

    def __init__(self, trees: ChangedTrees, root: int, transaction: int) -> None:
        self._trees, self._root, self._transaction = trees, root, transaction

    def get(self, key: Key) -> bytes | None:
        return self._trees.get(self._root, key)

    def set(self, key: Key, item: bytes | None) -> None:
        self._trees.change(self._root, key, item or None)

    def items(self, owner: int, kind: int, start: int = 0, stop: int = 1 << 64) -> Iterator[Item]:
        """Give the items of an object in `[start, stop)`, which are not to be changed meanwhile."""
        for key, item in self._trees.iter_range(self._root, owner, kind, start):
            if key[2] >= stop:
                return
            yield key, item

    def last(self, key: Key) -> Item | None:
        """Return the last item of this object and kind that is not behind `key`."""
        return self._trees.last(self._root, key)

    def has_inode(self, number: int) -> bool:
        return self.get((number, INODE, 0)) is not None

    def inode(self, number: int) -> bytes:
        """Return an inode that has to be there."""
        item = self.get((number, INODE, 0))
        if item is None or len(item) != INODE_SIZE:
            raise Damaged("", None, f"the log needs inode {number}, which is not there")
        return item

    def entry(self, key: Key, name: bytes) -> Entry | None:
        """Return a name in an item of a directory."""
        return next((entry for entry in entries(self.get(key)) if entry.name == name), None)

    def link(self, directory: int, number: int, ref: Ref, with_ref: bool) -> bool:
        """Add a name; with `with_ref`, to the inode too, and tell whether it did not have it."""
        name = ref.name
        if with_ref and not self._add_ref(directory, number, ref):
            return False
        mode = word(self.inode(number), MODE, 4)
        entry = _ENTRY.pack(
            number, INODE, 0, self._transaction, 0, len(name), _KINDS.get(stat.S_IFMT(mode), 0)
        )
        by_name = (directory, DIR_ITEM, hashed(name))
        by_index = (directory, DIR_INDEX, ref.number)
        if self.entry(by_name, name) or self.get(by_index) is not None or number == TOP:
            raise Damaged("", None, f"the log adds {name!r} to directory {directory} twice")
        self.set(by_name, (self.get(by_name) or b"") + entry + name)
        self.set(by_index, entry + name)
        self._grow(directory, 2 * len(name))
        return True

    def _add_ref(self, directory: int, number: int, ref: Ref) -> bool:
        key = (number, REF, directory)
        before = self.get(key) or b""
        if any(one.name == ref.name for one in refs(before)):
            return False
        item = before + _REF.pack(ref.number, len(ref.name)) + ref.name
        if len(item) + _ITEM_HEAD > self._trees.nodesize - HEADER:
            raise Damaged("", None, f"inode {number} has very many names in one directory")
        self.set(key, item)
        return True

    def unlink(self, directory: int, number: int, name: bytes) -> None:
        """Remove a name from where it lies; the inode's count of its links is left as it is."""
        by_name, by_inode = (directory, DIR_ITEM, hashed(name)), (number, REF, directory)
        listed, names = entries(self.get(by_name)), refs(self.get(by_inode))
        left = [entry.raw for entry in listed if entry.name != name]
        gone = [ref for ref in names if ref.name == name]
        if len(left) != len(listed) - 1 or len(gone) != 1:
            raise Damaged("", None, f"the log removes {name!r}, which is no name of inode {number}")
        self.set(by_name, b"".join(left))
        kept = (_REF.pack(ref.number, len(ref.name)) + ref.name for ref in names if ref != gone[0])
        self.set(by_inode, b"".join(kept))
        self.set((directory, DIR_INDEX, gone[0].number), None)
        self._grow(directory, -2 * len(name))

    def _grow(self, directory: int, size: int) -> None:
        item = self.inode(directory)
        if not stat.S_ISDIR(word(item, MODE, 4)):
            raise Damaged("", None, f"the log takes inode {directory} for a directory")
        self.set((directory, INODE, 0), with_word(item, SIZE, word(item, SIZE) + size))

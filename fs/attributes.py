"""What the kernel is told of an entry, and how long it may rely on it."""

from typing import cast

import pyfuse3

from backgate.fs.tree import Entry, Tree, is_writable

FOREVER = 365 * 86400.0  # seconds; for what never changes
FRESH_FOR = 1.0  # seconds; for a tree that does not say
NO_INODE = 0  # of an entry: there is none, or none that the kernel should know
SECTOR = 512  # bytes; the unit of st_blocks
BLOCK_SIZE = 128 * 1024  # bytes; what stdio and Python read and write at a time


def lifetime(tree: Tree) -> float:
    """Return for how many seconds the kernel may keep what it was told of `tree`."""
    if tree.is_immutable:
        return FOREVER
    fresh_for: float = getattr(tree, "fresh_for", FRESH_FOR)
    return fresh_for


def told_by(tree: Tree, entry: Entry) -> Tree:
    """Return the tree whose word counts for `entry` of `tree`: the one that it goes on in, where
    that can be changed.
    """
    junction = entry.junction
    return junction if junction is not None and is_writable(junction) else tree


def attributes(number: int, entry: Entry, seconds: float) -> pyfuse3.EntryAttributes:
    """Return `entry` as the kernel takes it, with its inode's `number`, to keep for `seconds`."""
    told = pyfuse3.EntryAttributes()
    told.st_ino = number
    told.entry_timeout = told.attr_timeout = seconds if entry.is_settled else 0
    told.st_mode = entry.mode
    told.st_nlink = entry.nlink
    told.st_uid, told.st_gid = entry.uid, entry.gid
    told.st_rdev = entry.rdev
    told.st_size = entry.size
    stored = entry.size if entry.allocated is None else entry.allocated
    told.st_blocks = -(-stored // SECTOR)
    told.st_blksize = BLOCK_SIZE
    told.st_mtime_ns = entry.mtime_ns
    told.st_atime_ns = entry.mtime_ns if entry.atime_ns is None else entry.atime_ns
    told.st_ctime_ns = entry.mtime_ns if entry.ctime_ns is None else entry.ctime_ns
    return told


class Bare:
    """What the kernel is told of a name when nobody wants attributes: its number and its type.

    The kernel keeps nothing of it, so there is nothing that it could forget.
    """

    def __init__(self) -> None:
        self._told = pyfuse3.EntryAttributes()
        self._mode = self._told.st_mode
        self._number = _Apart()

    @property
    def is_possible(self) -> bool:
        """True when the entry's inode and the directory's d_ino can be set apart."""
        return self.of(2, 0).st_ino == NO_INODE

    def of(self, number: int, mode: int) -> pyfuse3.EntryAttributes:
        """Return what to tell; it is good until the next call."""
        if mode != self._mode:
            self._told.st_mode = self._mode = mode
        self._number.answers = [number, NO_INODE]
        self._told.st_ino = cast(int, self._number)
        return self._told


class _Apart:
    """A number that is asked for twice: pyfuse3 sets the entry's inode first, and then d_ino.

    An entry without an inode is one that readdir(2) shows and of which the kernel keeps nothing.
    """

    __slots__ = ("answers",)

    answers: list[int]

    def __int__(self) -> int:
        return self.answers.pop()

    __index__ = __int__


def absent(tree: Tree) -> pyfuse3.EntryAttributes:
    """Return the answer that a name surely does not exist, as long as `tree` has it kept."""
    told = pyfuse3.EntryAttributes()
    told.st_ino = NO_INODE
    seconds: float = getattr(tree, "absent_for", lifetime(tree))
    told.entry_timeout = told.attr_timeout = seconds
    return told

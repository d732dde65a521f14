"""What the kernel is told of an entry, and how long it may rely on it."""

import pyfuse3

from backgate.fs.tree import Entry, Tree

FOREVER = 365 * 86400.0  # seconds; for what never changes
FRESH_FOR = 1.0  # seconds; for a tree that does not say
SECTOR = 512  # bytes; the unit of st_blocks
BLOCK_SIZE = 128 * 1024  # bytes; what stdio and Python read and write at a time


def lifetime(tree: Tree) -> float:
    """Return for how many seconds the kernel may keep what it was told of `tree`."""
    if tree.is_immutable:
        return FOREVER
    fresh_for: float = getattr(tree, "fresh_for", FRESH_FOR)
    return fresh_for


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


def absent(seconds: float) -> pyfuse3.EntryAttributes:
    """Return the answer that a name surely does not exist, to be kept for `seconds`."""
    told = pyfuse3.EntryAttributes()
    told.st_ino = 0
    told.entry_timeout = told.attr_timeout = seconds
    return told

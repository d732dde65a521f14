"""Entries of the files on disks: nodes of file systems, each with the volume that it lies on."""

import errno
import stat

from msgspec import Struct

from backgate.fs.disk_layout import Place
from backgate.fs.tree import Entry
from backgate.fs.volume import Node
from backgate.gateway.errors import FileError


class Inside(Struct, frozen=True, array_like=True):
    """A node of the file system on the volume at `place`."""

    place: Place
    node: Node
    above: tuple[bytes, ...] = ()  # inodes of the directories that it lies in

    @property
    def below(self) -> tuple[bytes, ...]:
        """Return what `above` is for its children."""
        return (*self.above, self.node.inode)


def require_directory(entry: Entry) -> None:
    """Return when `entry` is a directory; `FileError` (ENOTDIR) when it is not."""
    if not entry.is_directory:
        raise FileError(errno.ENOTDIR, entry.name)


def entry_of(directory: Inside, node: Node) -> Entry:
    """Return a node of `directory`; what cannot be, or not be told, is left to `child`."""
    is_directory = stat.S_ISDIR(node.mode)
    is_loop = is_directory and node.inode != b"" and node.inode in directory.below
    inside = Inside(directory.place, node, directory.below if is_directory else ())
    return shown_as(inside, is_settled=not node.problem and not is_loop)


def shown_as(inside: Inside, *, is_settled: bool) -> Entry:
    """Return the entry for a node; `is_settled`: what is told of it can be relied on."""
    node = inside.node
    return Entry(
        name=node.name,
        mode=node.mode,
        size=node.size,
        allocated=node.allocated,
        uid=node.uid,
        gid=node.gid,
        mtime_ns=node.mtime_ns,
        atime_ns=node.atime_ns,
        ctime_ns=node.ctime_ns,
        nlink=node.nlink,
        rdev=node.rdev,
        target=node.target,
        identity=(inside.place, node.inode) if node.inode else None,
        node=inside,
        has_xattrs=node.has_xattrs,
        is_settled=is_settled,
    )

"""Put the names of a directory into the reply to a readdir, with what the reader will want of them.

Directories are always told with all their attributes, for whoever walks a tree looks at them next.
"""

import logging
import stat
from collections.abc import Sequence

import pyfuse3

from backgate.fs.attributes import Bare, attributes, lifetime, told_by
from backgate.fs.handles import FIRST_CHILD, DirectoryHandle
from backgate.fs.inodes import Directory, Inodes
from backgate.fs.tree import FEW, Entry, Tree

KERNEL_NAME_MAX = 1024  # bytes, FUSE_NAME_MAX: one longer name fails its whole directory

log = logging.getLogger(__name__)


class Telling:
    """Tells of entries, and counts in `inodes` of which the kernel now knows."""

    def __init__(self, inodes: Inodes) -> None:
        self._inodes = inodes
        self._bare = Bare()

    async def tell(
        self, handle: DirectoryHandle, tree: Tree, start: int, token: pyfuse3.ReaddirToken
    ) -> None:
        """Put as much as the reply takes of what comes behind the position `start`."""
        entries = await handle.after(max(0, start - FIRST_CHILD))
        # From here to the reply there is no await while anything counted is untold.
        if start < FIRST_CHILD and not self._tell_dots(handle.directory, start, token):
            return
        position = max(start, FIRST_CHILD)
        if position == FIRST_CHILD and not handle.wants_attributes:
            entries = entries[:FEW]
        while entries and not self._tell_some(handle, tree, entries, position, token):
            position += len(entries)  # none of them has a name that the kernel takes
            entries = await handle.after(position - FIRST_CHILD)

    def _tell_some(
        self,
        handle: DirectoryHandle,
        tree: Tree,
        entries: Sequence[Entry | bytes],
        position: int,
        token: pyfuse3.ReaddirToken,
    ) -> bool:
        """Put as many `entries` into the reply as it takes; False if it could be offered none."""
        is_any, directory = False, handle.directory
        is_bare = not handle.wants_attributes
        if is_bare:
            handle.told_names()
        number, bare, reply = self._inodes.number, self._bare.of, pyfuse3.readdir_reply
        for entry in entries:
            position += 1
            if isinstance(entry, bytes):
                is_any = True
                if not reply(token, entry, bare(number(directory, entry), stat.S_IFREG), position):
                    break
                continue
            if not _is_presentable(entry.name):
                log.warning("a name the kernel cannot take is not shown: %.80r", entry.name)
                continue
            is_any = True
            if is_bare and not entry.is_directory and entry.identity is None:
                told = bare(number(directory, entry.name), entry.mode)
                if not reply(token, entry.name, told, position):
                    break
                continue
            inode = self._inodes.learned(directory, tree, entry)
            shown = inode.file.entry if inode.file is not None else entry
            told = attributes(inode.number, shown, lifetime(told_by(tree, entry)))
            if not reply(token, entry.name, told, position):
                self._inodes.forget(inode.number, 1)
                break
        return is_any

    def _tell_dots(self, directory: Directory, position: int, token: pyfuse3.ReaddirToken) -> bool:
        above = directory.parent or directory
        for number, name in ((directory.number, b"."), (above.number, b".."))[position:]:
            position += 1
            told = attributes(number, directory.entry, 0)
            if not pyfuse3.readdir_reply(token, name, told, position):
                return False
        return True


def can_be_bare() -> bool:
    """True when a name can be told without the kernel keeping anything of it."""
    return Bare().is_possible


def _is_presentable(name: bytes) -> bool:
    return (
        0 < len(name) <= KERNEL_NAME_MAX
        and name not in (b".", b"..")
        and b"/" not in name
        and b"\0" not in name
    )

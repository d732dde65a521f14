"""A local folder as a read-only tree, with everything that a real file system can tell."""

import errno
import os
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from backgate.fs.tree import Children, Entry
from backgate.gateway.errors import FileError
from backgate.gateway.source import Bytes, Source

PAGE = 7  # entries; small, so that paging is met


class FolderTree:
    """Every file below `top`, as it is now; `opened` lists the names that were opened."""

    is_immutable = True

    def __init__(self, top: Path) -> None:
        self._top = os.fsencode(top)
        self.opened: list[bytes] = []

    async def root(self) -> Entry:
        await trio.lowlevel.checkpoint()
        return self._entry(self._top, b"")

    async def child(self, directory: Entry, name: bytes) -> Entry:
        await trio.lowlevel.checkpoint()
        path = os.path.join(directory.node, name)
        if not os.path.lexists(path):
            raise FileError(errno.ENOENT, name)
        return self._entry(path, name)

    async def children(self, directory: Entry, cursor: bytes | None = None) -> Children:
        await trio.lowlevel.checkpoint()
        names = sorted(name for name in os.listdir(directory.node) if name > (cursor or b""))
        entries = [self._entry(os.path.join(directory.node, name), name) for name in names[:PAGE]]
        return Children(entries, names[PAGE - 1] if len(names) > PAGE else None)

    @asynccontextmanager
    async def open(self, file: Entry) -> AsyncIterator[Source]:
        await trio.lowlevel.checkpoint()
        self.opened.append(file.name)
        with open(file.node, "rb") as content:
            yield Bytes(content.read())

    async def xattrs(self, entry: Entry) -> Mapping[bytes, bytes]:
        await trio.lowlevel.checkpoint()
        names = os.listxattr(entry.node, follow_symlinks=False)
        return {os.fsencode(name): os.getxattr(entry.node, name) for name in names}

    def _entry(self, path: bytes, name: bytes) -> Entry:
        status = os.lstat(path)
        is_symlink = stat.S_ISLNK(status.st_mode)
        return Entry(
            name=name,
            mode=status.st_mode,
            size=status.st_size,
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            atime_ns=status.st_atime_ns,
            nlink=status.st_nlink,
            rdev=status.st_rdev,
            target=os.readlink(path) if is_symlink else None,
            identity=status.st_ino,
            node=path,
            has_xattrs=not is_symlink and bool(os.listxattr(path)),
        )

"""The top of a mount: `repository/` and `backups/` side by side."""

import errno
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import trio

from backgate.fs.tree import Children, Entry, Space, Tree, WritableTree, is_writable
from backgate.gateway.errors import FileError
from backgate.gateway.source import Source

MODE = stat.S_IFDIR | 0o755


class RootTree:
    """A fixed directory whose entries are the roots of other trees."""

    is_immutable = True

    def __init__(self, trees: Mapping[bytes, Tree]) -> None:
        self._entries = {
            name: Entry(name=name, mode=MODE, nlink=2, node=name, junction=tree)
            for name, tree in trees.items()
        }

    async def root(self) -> Entry:
        await trio.lowlevel.checkpoint()
        return Entry(name=b"", mode=MODE, nlink=2 + len(self._entries))

    async def child(self, directory: Entry, name: bytes) -> Entry:
        await trio.lowlevel.checkpoint()
        if name not in self._entries:
            raise FileError(errno.ENOENT, name)
        return self._entries[name]

    async def children(self, directory: Entry, cursor: bytes | None = None) -> Children:
        await trio.lowlevel.checkpoint()
        return Children([self._entries[name] for name in sorted(self._entries)], None)

    def space(self) -> Space:
        """Return what statfs should say: that of the tree that can be written."""
        for entry in self._entries.values():
            if entry.junction is not None and is_writable(entry.junction):
                return cast(WritableTree, entry.junction).space()
        return Space(0, 0)

    @asynccontextmanager
    async def open(self, file: Entry) -> AsyncIterator[Source]:
        raise FileError(errno.EISDIR, file.name)  # there are no files here
        yield

    async def xattrs(self, entry: Entry) -> Mapping[bytes, bytes]:
        await trio.lowlevel.checkpoint()
        return {}

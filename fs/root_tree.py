"""The top of a mount: `repository/` and `backups/` side by side."""

import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import trio
from msgspec.structs import replace

from backgate.fs.tree import Children, Entry, Space, Tree, WritableTree, is_writable
from backgate.gateway.errors import FileError
from backgate.gateway.source import Source

MODE = stat.S_IFDIR | 0o755


class RootTree:
    """A fixed directory whose entries are the roots of other trees."""

    is_immutable = True

    def __init__(self, trees: Mapping[bytes, Tree]) -> None:
        self._trees = dict(sorted(trees.items()))
        self.is_mirror = any(getattr(tree, "is_mirror", False) for tree in trees.values())
        self._made_ns = time.time_ns()

    async def root(self) -> Entry:
        await trio.lowlevel.checkpoint()
        return Entry(
            name=b"",
            mode=MODE,
            nlink=2 + len(self._trees),
            uid=os.geteuid(),
            gid=os.getegid(),
            mtime_ns=self._made_ns,
        )

    async def child(self, directory: Entry, name: bytes) -> Entry:
        tree = self._trees.get(name)
        if tree is None:
            raise FileError(errno.ENOENT, name)
        return replace(await tree.root(), name=name, junction=tree)

    async def children(self, directory: Entry, cursor: bytes | None = None) -> Children:
        return Children([await self.child(directory, name) for name in self._trees], None)

    async def space(self) -> Space:
        """Return what statfs should say: that of the tree that can be written."""
        for tree in self._trees.values():
            if is_writable(tree):
                return await cast(WritableTree, tree).space()
        return Space(0, 0)

    @asynccontextmanager
    async def open(self, file: Entry) -> AsyncIterator[Source]:
        raise FileError(errno.EISDIR, file.name)  # there are no files here
        yield

    async def xattrs(self, entry: Entry) -> Mapping[bytes, bytes]:
        await trio.lowlevel.checkpoint()
        return {}

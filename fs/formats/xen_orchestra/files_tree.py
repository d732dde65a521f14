"""A few files as a tree: what a backup of a configuration consists of."""

import errno
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import trio

from backgate.fs.tree import Children, Entry
from backgate.gateway.errors import FileError
from backgate.gateway.source import Source

DIRECTORY, FILE = 0o040555, 0o100444

Path = tuple[bytes, ...]


class FilesTree:
    """`files` by path, all of one time; directories are what the paths say."""

    is_immutable = True

    def __init__(self, files: Mapping[Path, Source], mtime_ns: int) -> None:
        self._mtime_ns = mtime_ns
        self._files = files
        self._names: dict[Path, dict[bytes, None]] = {(): {}}
        for path in files:
            for depth in range(len(path)):
                self._names.setdefault(path[:depth], {})[path[depth]] = None

    async def root(self) -> Entry:
        await trio.lowlevel.checkpoint()
        return self._entry(())

    async def child(self, directory: Entry, name: bytes) -> Entry:
        await trio.lowlevel.checkpoint()
        if name not in self._names_in(directory):
            raise FileError(errno.ENOENT, name)
        return self._entry((*directory.node, name))

    async def children(self, directory: Entry, cursor: bytes | None = None) -> Children:
        await trio.lowlevel.checkpoint()
        names = self._names_in(directory)
        return Children([self._entry((*directory.node, name)) for name in sorted(names)], None)

    @asynccontextmanager
    async def open(self, file: Entry) -> AsyncIterator[Source]:
        await trio.lowlevel.checkpoint()
        if not file.is_file:
            raise FileError(errno.EISDIR, file.name)
        yield self._files[file.node]

    async def xattrs(self, entry: Entry) -> Mapping[bytes, bytes]:
        await trio.lowlevel.checkpoint()
        return {}

    def _names_in(self, directory: Entry) -> Mapping[bytes, None]:
        if not directory.is_directory:
            raise FileError(errno.ENOTDIR, directory.name)
        return self._names[directory.node]

    def _entry(self, path: Path) -> Entry:
        name = path[-1] if path else b""
        if path in self._names:
            return Entry(name=name, mode=DIRECTORY, nlink=2, node=path, mtime_ns=self._mtime_ns)
        size = self._files[path].size
        return Entry(name=name, mode=FILE, size=size, node=path, mtime_ns=self._mtime_ns)

"""One archive as a tree: directories from its index, bytes from the archive itself."""

import errno
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from backgate.fs.formats.tar.index import Extent, Index, Node
from backgate.fs.formats.tar.schema import ROOT
from backgate.fs.tree import Children, Entry
from backgate.gateway.errors import FileError
from backgate.gateway.source import Bytes, Data, Source, Window

PAGE = 500  # entries in one page of a directory; 2 ms on trio's thread
EXTENTS_AT_ONCE = 1000  # of a sparse file, looked up together


class TarTree:
    """The tree that extracting the archive would leave."""

    is_immutable = True

    def __init__(self, index: Index, plain: Source) -> None:
        """`plain` is the archive's bytes, decompressed."""
        self._index, self._plain = index, plain

    async def root(self) -> Entry:
        await trio.lowlevel.checkpoint()
        return _entry(b"", self._index.node(ROOT))

    async def child(self, directory: Entry, name: bytes) -> Entry:
        await trio.lowlevel.checkpoint()
        _require_directory(directory)
        node = self._index.child(directory.node.node, name)
        if node is None:
            raise FileError(errno.ENOENT, name)
        return _entry(name, node)

    async def children(self, directory: Entry, cursor: bytes | None = None) -> Children:
        await trio.lowlevel.checkpoint()
        _require_directory(directory)
        found = self._index.children(directory.node.node, cursor or b"", PAGE)
        entries = [_entry(name, node) for name, node in found]
        return Children(entries, entries[-1].name if len(entries) == PAGE else None)

    @asynccontextmanager
    async def open(self, file: Entry) -> AsyncIterator[Source]:
        await trio.lowlevel.checkpoint()
        if not file.is_file:
            raise FileError(errno.EISDIR if file.is_directory else errno.EINVAL, file.name)
        node: Node = file.node
        if node.size == 0:
            yield Bytes(b"")
        elif node.is_sparse:
            yield SparseFile(self._index, node, self._plain)
        else:
            yield Window(self._plain, node.data, node.size)

    async def xattrs(self, entry: Entry) -> Mapping[bytes, bytes]:
        await trio.lowlevel.checkpoint()
        return self._index.xattrs(entry.node.node) if entry.has_xattrs else {}


class SparseFile:
    """A member with holes: a source whose missing pieces are zeros."""

    def __init__(self, index: Index, node: Node, plain: Source) -> None:
        self.size = node.size
        self._index, self._node, self._plain = index, node.node, plain

    async def read_at(self, offset: int, length: int) -> Data:
        await trio.lowlevel.checkpoint()
        stop = min(offset + length, self.size)
        found = bytearray(max(0, stop - offset))
        at = offset
        while at < stop:
            extents = self._index.extents(self._node, at, stop, EXTENTS_AT_ONCE)
            if not extents:
                break  # a hole up to the end
            at = await self._read(extents, found, offset, stop)
        return memoryview(found)

    async def _read(
        self, extents: Sequence[Extent], found: bytearray, offset: int, stop: int
    ) -> int:
        """Put the pieces into `found`; they lie one behind another, so one read has them all."""
        (start, _, data), (last_start, last_size, last_data) = extents[0], extents[-1]
        first = data + max(0, offset - start)
        end = last_data + min(last_size, stop - last_start)
        stored = memoryview(await self._plain.read_at(first, end - first))
        for start, size, data in extents:
            begin, close = max(start, offset), min(start + size, stop)
            at = data + begin - start - first
            found[begin - offset : close - offset] = stored[at : at + close - begin]
        return last_start + last_size


def _require_directory(entry: Entry) -> None:
    if not entry.is_directory:
        raise FileError(errno.ENOTDIR, entry.name)


def _entry(name: bytes, node: Node) -> Entry:
    return Entry(
        name=name,
        mode=node.mode,
        size=node.size if not stat.S_ISDIR(node.mode) else 0,
        uid=node.uid,
        gid=node.gid,
        mtime_ns=node.mtime_ns,
        atime_ns=node.atime_ns,
        ctime_ns=node.ctime_ns,
        nlink=node.nlink,
        rdev=node.rdev,
        target=node.target,
        identity=node.node,
        node=node,
        has_xattrs=bool(node.has_xattrs),
    )

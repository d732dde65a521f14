"""One snapshot as a tree: directories from tree blobs, files from data blobs."""

import errno
import logging
from array import array
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from backgate.fs.formats.restic.blobs import Blobs
from backgate.fs.formats.restic.crypto import Unsound
from backgate.fs.formats.restic.directories import Directories
from backgate.fs.formats.restic.directory import CHUNK
from backgate.fs.formats.restic.documents import ID, Node
from backgate.fs.formats.restic.entries import Place, content_of, entry_of, xattrs_of
from backgate.fs.formats.restic.file import HOLE, File, hole_id
from backgate.fs.formats.restic.located import Located
from backgate.fs.formats.restic.lookahead import FilesAhead
from backgate.fs.formats.restic.packs import Blob
from backgate.fs.formats.restic.treeahead import TreesAhead
from backgate.fs.tree import DIRECTORY_MODE, Children, Entry
from backgate.gateway.errors import Damaged, FileError
from backgate.gateway.source import Data, Source

FEW = 64  # blobs that are looked up without going to a thread for it

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the snapshots of one repository read from."""

    directories: Directories
    blobs: Blobs[Data]
    located: Located
    nursery: trio.Nursery
    workers: trio.CapacityLimiter
    window_max: int  # bytes to fetch ahead of a reader


class SnapshotTree:
    """The `Tree` of the snapshot in the object `key`, whose root is the tree blob `root`."""

    is_immutable = True

    def __init__(self, key: str, root: bytes, time_ns: int, shelf: Shelf) -> None:
        self._key, self._root, self._time_ns, self._shelf = key, root, time_ns, shelf
        self._directories = shelf.directories
        self._trees_ahead = TreesAhead(shelf.directories, shelf.nursery)
        self._files_ahead = FilesAhead(
            shelf.directories, shelf.blobs, shelf.nursery, shelf.window_max
        )

    async def root(self) -> Entry:
        await trio.lowlevel.checkpoint()
        place = Place(tree=b"", number=0, above=None, subtree=self._root)
        return Entry(name=b"", mode=DIRECTORY_MODE, nlink=2, mtime_ns=self._time_ns, node=place)

    async def child(self, directory: Entry, name: bytes) -> Entry:
        tree = _tree_of(directory)
        found = await self._directories.find(tree, name)
        if found is None:
            raise FileError(errno.ENOENT, name)
        return self._entry(found[1], tree, found[0], directory.node)

    async def children(self, directory: Entry, cursor: bytes | None = None) -> Children:
        tree = _tree_of(directory)
        whole = await self._directories.get(tree)
        chunk = int(cursor or b"0")
        nodes = self._directories.nodes(tree, whole, chunk)
        if chunk == 0:
            self._trees_ahead.listed(directory.node, nodes)
        first = chunk * CHUNK
        entries = [
            self._entry(node, tree, number, directory.node)
            for number, node in enumerate(nodes, first)
        ]
        is_last = first + len(nodes) >= whole.count
        return Children(entries, None if is_last else b"%d" % (chunk + 1))

    @asynccontextmanager
    async def open(self, file: Entry) -> AsyncIterator[Source]:
        if not file.is_file:
            raise FileError(errno.EISDIR if file.is_directory else errno.EINVAL, file.name)
        self._files_ahead.opened(file.node)
        node = await self._node(file)
        name = f"{self._key}: {node.name}"
        try:
            ids = content_of(node)
        except Unsound as error:
            raise Damaged(name, None, str(error)) from None
        stops = await self._stops(ids)
        shelf = self._shelf
        source = File(name, ids, stops, shelf.blobs, shelf.window_max)
        if source.size != node.size:
            log.warning("%s: has %d bytes, listed with %d", name, source.size, node.size)
        yield source

    async def xattrs(self, entry: Entry) -> Mapping[bytes, bytes]:
        if not entry.has_xattrs:
            await trio.lowlevel.checkpoint()
            return {}
        node = await self._node(entry)
        try:
            return xattrs_of(node)
        except Unsound as error:
            raise Damaged(f"{self._key}: {node.name}", None, str(error)) from None

    async def _node(self, entry: Entry) -> Node:
        place: Place = entry.node
        return await self._directories.node(place.tree, place.number)

    def _entry(self, node: Node, tree: bytes, number: int, above: Place) -> Entry:
        try:
            return entry_of(node, tree, number, above)
        except Unsound as error:
            raise Damaged(f"{self._key}: tree {tree.hex()}", None, str(error)) from None

    async def _stops(self, ids: bytes) -> "array[int]":
        """Where in the file each blob ends, by the index; which is read anew when it lacks one."""
        located = self._shelf.located
        while True:
            generation = located.generation
            if len(ids) <= FEW * ID:
                stops, unknown = _measured(ids, located)
            else:
                stops, unknown = await trio.to_thread.run_sync(
                    _measured, ids, located, limiter=self._shelf.workers
                )
            if unknown is None:
                return stops
            if not await located.renew(generation):
                raise located.why_unknown(unknown)


def _measured(ids: bytes, located: Located) -> "tuple[array[int], bytes | None]":
    stops = array("Q")
    at = 0
    for start in range(0, len(ids), ID):
        blob = ids[start : start + ID]
        if blob == hole_id():
            at += HOLE
        elif where := located.find(blob):
            at += Blob(blob, where[0]).plain_length
        else:
            return stops, blob
        stops.append(at)
    return stops, None


def _tree_of(directory: Entry) -> bytes:
    place = directory.node
    if not directory.is_directory:
        raise FileError(errno.ENOTDIR, directory.name)
    tree: bytes | None = place.subtree
    if tree is None:
        reason = place.error or "its names were not backed up"
        raise FileError(errno.EIO, directory.name, reason)
    return tree

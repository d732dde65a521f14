"""The read-only view of a repository: what is in the store, and nothing of anybody's spool."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import trio

from backgate.fs.repository_entries import Entries, key_of, prefix_of
from backgate.fs.tree import Children, Entry, Names
from backgate.gateway.repository import Repository
from backgate.gateway.shelf import Shelf
from backgate.gateway.source import Source


class ObjectsTree:
    """A repository as a `Tree`."""

    is_immutable = False  # whoever writes to the store changes it

    def __init__(self, repository: Repository) -> None:
        self._metadata, self._sources = repository.metadata, repository.source
        self.is_mirror = repository.config.kind == "mirror"
        self._entries = Entries(repository, Shelf())

    async def root(self) -> Entry:
        return await self._entries.root()

    async def child(self, directory: Entry, name: bytes) -> Entry:
        return await self._entries.child(prefix_of(directory), name)

    async def children(self, directory: Entry, cursor: bytes | None = None) -> Children:
        return await self._entries.children(prefix_of(directory), cursor)

    async def names(self, directory: Entry, cursor: bytes | None = None) -> Names:
        return await self._entries.names(prefix_of(directory), cursor)

    @asynccontextmanager
    async def open(self, file: Entry) -> AsyncIterator[Source]:
        known = await self._metadata.look_up(key_of(file))
        yield self._sources(known.info)

    async def xattrs(self, entry: Entry) -> Mapping[bytes, bytes]:
        await trio.lowlevel.checkpoint()
        return await self._entries.xattrs(entry)

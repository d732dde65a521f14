"""One restic repository: unlocked once, its snapshots listed, its trees opened."""

import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from backgate.fs.format import Backup, Surroundings
from backgate.fs.formats.restic.blobs import Blobs
from backgate.fs.formats.restic.caches import Caches
from backgate.fs.formats.restic.crypto import Opener
from backgate.fs.formats.restic.directories import Directories
from backgate.fs.formats.restic.directory import directory_of
from backgate.fs.formats.restic.layout import Layout
from backgate.fs.formats.restic.located import Located
from backgate.fs.formats.restic.locked import locked, unreadable
from backgate.fs.formats.restic.packs import Packs
from backgate.fs.formats.restic.snapshots import Announced, announced, incomplete
from backgate.fs.formats.restic.tree import Shelf, SnapshotTree
from backgate.fs.formats.restic.unpacked import read_sealed
from backgate.fs.formats.restic.vault import Vault
from backgate.gateway.errors import (
    BackgateError,
    Damaged,
    NotFound,
    PasswordNeeded,
    StoreError,
    Unreachable,
)
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data

SNAPSHOT_READERS = 8  # snapshot files read at once
FOLDER_NAME = 16  # characters

log = logging.getLogger(__name__)


class Repository:
    """The repository that `layout` describes; a newer layout replaces it as objects come and go."""

    def __init__(self, layout: Layout, lent: Surroundings, vault: Vault, caches: Caches) -> None:
        self.layout = layout
        self._lent, self._vault, self._caches = lent, vault, caches
        self._announced: dict[tuple[str, str], Announced] = {}  # by key and etag of the file
        self._shelf: Shelf | None = None
        self._opener: Opener | None = None  # what the shelf opens packs with
        self._shelved: frozenset[str] = frozenset()  # the index files that the shelf was told of
        self._listing, self._shelving = trio.Lock(), trio.Lock()

    async def backups(self, layout: Layout) -> list[Backup]:
        """Return the snapshots of the repository as it is now, as `layout` says.

        `Unreachable` is raised: what could not be asked is not missing. Whatever else is wrong
        makes an incomplete backup.
        """
        async with self._listing:
            self.layout = layout
            if not layout.snapshots:
                return []
            try:
                opener = await self._vault.opener(layout)
            except PasswordNeeded as error:
                return [locked(layout, str(error))]
            except Unreachable:
                raise
            except BackgateError as error:
                return [unreadable(layout, str(error))]
            await self._read_snapshots(opener)
            return [one.backup for one in self._announced.values()]

    @asynccontextmanager
    async def open(self, backup: Backup) -> AsyncIterator[SnapshotTree]:
        """Open a complete snapshot."""
        for one in self._announced.values():
            if one.backup.key == backup.key and one.root is not None:
                break
        else:
            raise NotFound(f"{backup.key}: no such snapshot", key=backup.key)
        shelf = await self._ready_shelf()
        yield SnapshotTree(backup.key, one.root, backup.time_ns, shelf)

    async def _read_snapshots(self, opener: Opener) -> None:
        wanted = {(info.key, info.etag): info for info in self.layout.snapshots.values()}
        self._announced = {
            version: one for version, one in self._announced.items() if version in wanted
        }
        missing = [info for version, info in wanted.items() if version not in self._announced]
        failures: list[Unreachable] = []
        readers = trio.CapacityLimiter(SNAPSHOT_READERS)
        async with trio.open_nursery() as nursery:
            for info in missing:
                nursery.start_soon(self._read_snapshot, info, opener, readers, failures)
        if failures:
            raise failures[0]

    async def _read_snapshot(
        self,
        info: ObjectInfo,
        opener: Opener,
        readers: trio.CapacityLimiter,
        failures: list[Unreachable],
    ) -> None:
        lent, version = self._lent, (info.key, info.etag)
        async with readers:
            if failures:
                return
            try:
                data = await read_sealed(lent.objects, info, opener, lent.workers)
                self._announced[version] = announced(self.layout, info, data)
            except NotFound:
                log.debug("%s has been forgotten", info.key)  # after the listing
            except Unreachable as error:
                failures.append(error)
            except (Damaged, StoreError) as error:
                self._announced[version] = incomplete(self.layout, info, str(error))

    async def _ready_shelf(self) -> Shelf:
        """Return what trees read from, with the index files of the present layout known."""
        async with self._shelving:
            opener = await self._vault.opener(self.layout)
            if self._shelf is None or opener != self._opener:  # made anew, under the same name
                self._shelf, self._opener = self._new_shelf(opener), opener
                self._shelved = frozenset()
            index = frozenset(self.layout.index)
            if index != self._shelved or not index:
                await self._shelf.located.know(self.layout.index.values())
                self._shelved = index
            return self._shelf

    def _new_shelf(self, opener: Opener) -> Shelf:
        lent, caches, layout = self._lent, self._caches, self.layout
        folder = hashlib.sha256(layout.where.encode()).hexdigest()[:FOLDER_NAME]
        located = Located(
            lent.objects, layout.where, lent.cache_directory / folder, opener, lent.workers
        )
        packs = Packs(lent.objects, layout, opener, lent.workers, caches.opening)
        trees = Blobs(packs, located, directory_of, caches.directories, caches, lent.nursery)
        data = Blobs(packs, located, _as_is, caches.data, caches, lent.nursery)
        return Shelf(Directories(trees), data, located, lent.nursery, lent.workers, caches.window)


def _as_is(plain: Data) -> Data:
    return plain

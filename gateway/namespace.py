"""Changes of what names mean: rename, unlink, mkdir, rmdir, symlink; in the store, the spool and
the cache.

Who calls has claimed the names concerned and looked at what they mean. An acknowledged change is in
the store, in order: what is acknowledged later is never seen there earlier.

A directory is kept by a marker object, `name/`. One that exists without, because somebody wrote
objects below it, is given its marker before the first child is taken from it here, so that it does
not vanish with its last.
"""

import errno
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from backgate.gateway.attributes import Attributes, default_attributes, metadata_from_attributes
from backgate.gateway.claims import Claims
from backgate.gateway.errors import AlreadyThere, FileError, NotFound, Replaced, StoreError
from backgate.gateway.keys import parent_of
from backgate.gateway.metadata.rows import Known, Subdirectory
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.records import HIDDEN
from backgate.gateway.source import Data
from backgate.gateway.spool import Spool
from backgate.gateway.spooled import Sources, SpooledFile

Learn = Callable[[str], Awaitable[object]]  # have the index know what is under a key now


@dataclass(frozen=True, slots=True)
class Name:
    """What a name of a file means: an object, a file of the spool, or both."""

    key: str
    spooled: SpooledFile | None
    known: Known | None


class OpenObject:
    """A `Source` over an object that somebody has open, wherever it is renamed to."""

    def __init__(self, info: ObjectInfo, sources: Sources, claims: Claims, learn: Learn) -> None:
        self.info, self.size = info, info.size
        self._sources, self._source, self._claims = sources, sources(info), claims
        self._learn = learn

    async def read_at(self, offset: int, length: int) -> Data:
        """As a `Source`; `Replaced` when another object took its place: who opens it anew finds
        that.
        """
        while True:
            source = self._source
            try:
                return await source.read_at(offset, length)
            except Replaced:
                async with self._claims.claim(self.info.key):
                    pass  # who was copying it onto itself has told where it is now
                if source is self._source:
                    with suppress(StoreError):
                        await self._learn(self.info.key)  # or the index would have the old one
                    raise

    def moved(self, info: ObjectInfo) -> None:
        """Go on reading from where the same bytes are now."""
        self.info, self._source = info, self._sources(info)


class Namespace:
    """The names of one repository."""

    def __init__(self, spool: Spool) -> None:
        self._spool, self._store, self._metadata = spool, spool.store, spool.metadata
        self._taking = spool.taking
        self._open: dict[str, set[OpenObject]] = {}  # key -> who reads the object

    @contextmanager
    def opened(self, info: ObjectInfo) -> Iterator[OpenObject]:
        """Provide the object's bytes; they stay readable when it is renamed or unlinked."""
        one = OpenObject(info, self._spool.sources, self._spool.claims, self._taking.learn)
        self._open.setdefault(info.key, set()).add(one)
        try:
            yield one
        finally:
            readers = self._open[one.info.key]
            readers.discard(one)
            if not readers:
                del self._open[one.info.key]
                if one.info.key.startswith(HIDDEN):
                    self._spool.asides.remove([one.info.key])

    async def put(self, key: str, body: bytes, attributes: Attributes) -> ObjectInfo:
        """Store a small object; in a repository that others write to, only where there is none.

        Raises `FileError` (EEXIST) when there is one already.
        """
        metadata = metadata_from_attributes(attributes)
        try:
            async with self._spool.turns.turn(key) as if_absent:
                info = await self._store.put(key, body, metadata, if_absent=if_absent)
        except AlreadyThere:
            await self._taking.learn(key)
            raise FileError(errno.EEXIST, key) from None
        await self._metadata.stored(info, attributes)
        return info

    async def create(self, key: str, attributes: Attributes, *, exclusive: bool) -> SpooledFile:
        """Make a new file; where others write too, an exclusive one is taken in the store.

        Raises `FileError` (EEXIST) when another gateway has it, `Unsupported` where that is not to
        be known.
        """
        if exclusive and self._taking.concerns(key):
            self._taking.expect_decided("creating it exclusively", key)
            return await self._spool.take(key, attributes)
        return self._spool.create(key, attributes)

    def may_be_gone(self, found: Known | Subdirectory | SpooledFile) -> bool:
        """True when another gateway may have removed what the index still has: the store knows."""
        return self._taking.asks_store and not isinstance(found, SpooledFile)

    async def make_directory(self, prefix: str, attributes: Attributes, *, is_known: bool) -> None:
        """Make an empty directory; `is_known`: the index had it before.

        Raises `FileError` (EEXIST) when another gateway has it.
        """
        self._taking.expect_no_lock(prefix)
        if is_known and not await self._metadata.is_empty_in_store(prefix):
            raise FileError(errno.EEXIST, prefix)  # it may have no marker, and is to get none of us
        await self.put(prefix, b"", attributes)
        await self._metadata.directory_made(prefix, attributes)

    async def remove_directory(self, prefix: str) -> None:
        """Remove a directory; `FileError` (ENOTEMPTY) when anything is in it."""
        await self.expect_empty(prefix)
        await self._keep_parent(prefix)
        await self._delete(prefix)
        await self._metadata.directory_removed(prefix)
        self._spool.end_epoch()

    async def expect_empty(self, prefix: str) -> None:
        """Raise `FileError` (ENOTEMPTY) when the directory `prefix` holds anything."""
        metadata = self._metadata  # another gateway may have put something there
        is_empty = metadata.is_empty_in_store if self._taking.asks_store else metadata.is_empty
        if self._spool.shelf.below(prefix) or not await is_empty(prefix):
            raise FileError(errno.ENOTEMPTY, prefix)

    async def remove(self, name: Name) -> None:
        """Unlink a file; who has it open goes on reading and writing."""
        await self._keep_parent(name.key)
        if name.known is not None:
            await self._preserve(name)
            await self._delete(name.key)
            await self._metadata.removed([name.key])
        if name.spooled is not None:
            self._spool.unlinked(name.spooled)
            await self._spool.journal.synchronize()
        self._spool.end_epoch()

    async def rename(self, name: Name, target: Name, *, no_replace: bool) -> None:
        """Rename a file over what `target` is; one that waits to be stored is stored by it."""
        await self._keep_parent(name.key)
        if target.known is not None:
            await self._preserve(target)
        spooled = name.spooled
        if spooled is not None:
            spooled.renamed()
        is_durable = target.spooled is not None and target.spooled.is_durable
        if spooled is not None and spooled.is_dirty:
            spooled.if_absent = no_replace and self._taking.asks_store
            await self._rename_dirty(name, spooled, target)
            self._spool.drop_if_done(spooled)
        else:
            renames = self._spool.renames
            is_decided = no_replace and self._taking.asks_store
            rename = renames.rename_to_new if is_decided else renames.rename
            await rename(name.key, target.key, self.moved)
            if target.spooled is not None:
                self._spool.unlinked(target.spooled)
            if spooled is not None:
                self._spool.renamed(spooled, target.key)
        if is_durable or (spooled is not None and spooled.is_durable):
            await self._spool.journal.synchronize()  # or a loss of power brings the old name back
        self._spool.end_epoch()

    async def rename_directory(self, source: str, target: str) -> None:
        """Rename a directory to one that is not there, or is empty.

        Where others write too, only to one that is not there. Raises `FileError` (ENOTEMPTY).
        """
        self._taking.expect_decided("rename of a directory", target)
        if self._spool.shelf.below(target):
            raise FileError(errno.ENOTEMPTY, target)
        await self._keep_parent(source)
        await self._ensure_marker(source)
        renames = self._spool.renames
        rename = renames.rename_to_new if self._taking.asks_store else renames.rename
        await rename(source, target, self.moved)
        self._spool.moved_below(source, target)
        await self._spool.journal.synchronize()
        self._spool.end_epoch()

    async def link(self, source: str, target: str) -> Known:
        """Copy the object `source` to `target`, on the store's side: a store has no links."""
        self._taking.expect_decided("a link", target)
        known = await self._metadata.settled(source)
        info = await self._spool.renames.link(known.info, known.attributes, target)
        await self._metadata.stored(info, known.attributes)
        self._spool.end_epoch()
        return Known(info, known.attributes, is_settled=True)

    def moved(self, key: str, info: ObjectInfo) -> None:
        """Have all who read or write the object `key` go on with `info`."""
        self._spool.moved(key, info)
        self._reopen(key, info)

    async def _rename_dirty(self, name: Name, spooled: SpooledFile, target: Name) -> None:
        is_only_here = name.known is None
        stays = self._spool.staged.matches(target.key) and target.known is None
        if is_only_here and (stays or self._spool.is_lazy):
            spooled.is_new = target.known is None
            await self._spool.stay_as(spooled, target.key)
            return
        await self._spool.publish(spooled, target.key)
        if not is_only_here:
            await self._spool.deletions.delete(name.key)
            await self._metadata.removed([name.key])

    async def _delete(self, key: str) -> None:
        """Delete an object, and not what another gateway makes of its name meanwhile."""
        info = None
        if self._taking.asks_store:
            with suppress(NotFound):
                info = (await self._metadata.look_up(key)).info
        await self._spool.deletions.delete(key, info)

    async def _preserve(self, name: Name) -> None:
        """Keep the bytes of an object that is about to go for those who have it open."""
        assert name.known is not None
        info, spooled = name.known.info, name.spooled
        if self._open.get(name.key):
            copy = await self._spool.asides.copy(info, name.known.attributes, self._spool.renames)
            self._reopen(name.key, copy)
        if spooled is not None and spooled.opens and spooled.needs(name.key):
            copy = await self._spool.asides.copy(info, name.known.attributes, self._spool.renames)
            spooled.backing.moved(name.key, copy)
            spooled.hidden.add(copy.key)

    def _reopen(self, key: str, info: ObjectInfo) -> None:
        readers = self._open.pop(key, set())
        for one in readers:
            one.moved(info)
        if readers:
            self._open.setdefault(info.key, set()).update(readers)

    async def _keep_parent(self, key: str) -> None:
        parent = parent_of(key.rstrip("/"))
        if parent:
            await self._ensure_marker(parent)

    async def _ensure_marker(self, prefix: str) -> None:
        try:
            await self._metadata.look_up(prefix)
        except NotFound:
            attributes = default_attributes(ObjectInfo(prefix, 0, time.time_ns(), ""))
            metadata = metadata_from_attributes(attributes)
            info = await self._store.put(prefix, b"", metadata)
            await self._metadata.stored(info, attributes)

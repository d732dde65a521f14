"""Renames in the store: copies on the store's side, then deletes, journalled so that a crash
finishes them.

All copies exist before the first original goes, so whoever looks at the store meanwhile misses
nothing, and doing it twice does no harm. One that fails is taken back: its copies are deleted
again.
"""

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import trio
from msgspec.structs import replace

from backgate.gateway.attributes import Attributes
from backgate.gateway.copies import Copies
from backgate.gateway.errors import FileError, NotFound, StoreError
from backgate.gateway.journal import Journal
from backgate.gateway.keys import name_of, parent_of
from backgate.gateway.metadata.cache import Metadata
from backgate.gateway.metadata.rows import Subdirectory
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.records import Move, Moved
from backgate.gateway.store import ObjectStore
from backgate.gateway.taking import Taking

COPIES_AT_ONCE = 16  # objects of one directory
UNDO_PATIENCE = 30.0  # seconds; the store has just failed for as long as it may

log = logging.getLogger(__name__)

OnMoved = Callable[[str, ObjectInfo], None]  # told the old key and the object as it is now


@dataclass(frozen=True, slots=True)
class _Object:
    info: ObjectInfo
    attributes: Attributes | None
    target: str


class Renames:
    """Renames objects of one store, with what the metadata cache knows of them."""

    def __init__(
        self,
        store: ObjectStore,
        metadata: Metadata,
        journal: Journal,
        copies: Copies,
        taking: Taking,
        nursery: trio.Nursery,
    ) -> None:
        self._store, self._metadata, self._journal = store, metadata, journal
        self.copies, self._taking, self._nursery = copies, taking, nursery
        self._last = max(journal.state.moves, default=0)

    async def rename(self, source: str, target: str, on_moved: OnMoved) -> None:
        """Rename the object `source`; one that ends in "/" is a directory with all below it.

        `on_moved` hears of each copy before its original goes. Raises `StoreError`, and then all is
        as it was; after cancellation the next start of the gateway finishes it.
        """
        move = await self._announced(source, target, is_taken=True)
        try:
            await self.finish(move, on_moved)
        except StoreError:
            self._journal.append(Moved(move.number))
            raise

    async def rename_to_new(self, source: str, target: str, on_moved: OnMoved) -> None:
        """Rename as `rename` does, to a name that nobody has, as the store decides.

        Raises `FileError` too: ENOTEMPTY for a directory that somebody has, EEXIST for a file.
        """
        move = await self._announced(source, target, is_taken=False)
        await self._take(move)
        self._journal.append(replace(move, is_taken=True))
        await self._journal.synchronize()
        try:
            await self.finish(move, on_moved)
        except StoreError:
            self._journal.append(move)
            self._nursery.start_soon(self.give_up, move)  # not if it is more than a name by now
            raise

    async def link(
        self, info: ObjectInfo, attributes: Attributes | None, target: str
    ) -> ObjectInfo:
        """Copy an object to a name that nobody has; where others write too, as the store decides.

        Raises `FileError` (EEXIST) too.
        """
        if not self._taking.asks_store:
            return await self.copies.copy(info, attributes, target)
        move = await self._announced(info.key, target, is_taken=False)
        await self._take(move)
        try:
            copy = await self.copies.copy(info, attributes, target)
        except StoreError:
            self._nursery.start_soon(self.give_up, move)
            raise
        self._journal.append(Moved(move.number))
        return copy

    async def give_up(self, move: Move) -> None:
        """End a rename, or a link, that did not come so far that its target is more than a name."""
        await self._taking.surely_give_back(move.target, _purpose(move))
        self._journal.append(Moved(move.number))

    async def finish(self, move: Move, on_moved: OnMoved) -> None:
        """Do what is left to do of a rename that the journal knows."""
        objects = await self._objects(move.source, move.target)
        copies: dict[str, ObjectInfo] = {}
        try:
            await self._copy_all(objects, copies)
        except StoreError:
            await self._undo([copy.key for copy in copies.values()])
            raise
        if move.source.endswith("/"):
            await self._move_directories(move, objects)
        for one in objects:
            copy = copies.get(one.info.key)
            if copy is not None:
                is_top = one.target == move.target
                attributes = _renamed(one.attributes) if is_top else one.attributes
                await self._metadata.stored(copy, attributes)
                on_moved(one.info.key, copy)
        await self._journal.synchronize()  # from here on the originals may be gone
        await self._delete([one.info.key for one in objects])
        if move.source.endswith("/"):
            await self._metadata.directory_removed(move.source)
        self._journal.append(Moved(move.number))
        await self._journal.synchronize()

    async def copy(self, info: ObjectInfo, attributes: Attributes | None, key: str) -> ObjectInfo:
        """Copy an object of any size; its metadata goes along."""
        return await self.copies.copy(info, attributes, key)

    async def _announced(self, source: str, target: str, *, is_taken: bool) -> Move:
        self._last += 1
        move = Move(self._last, source, target, is_taken)
        self._journal.append(move)
        await self._journal.synchronize()
        return move

    async def _take(self, move: Move) -> None:
        is_directory = move.target.endswith("/")
        try:
            await self._taking.take(move.target, None, _purpose(move))
        except FileError as error:
            self._journal.append(Moved(move.number))
            code = errno.ENOTEMPTY if is_directory else error.errno
            raise FileError(code, move.target) from None
        except StoreError:
            self._nursery.start_soon(self.give_up, move)  # what was asked may still be done
            raise
        if not is_directory:
            return
        try:
            is_empty = await self._metadata.is_empty_in_store(move.target)
        except StoreError:
            self._nursery.start_soon(self.give_up, move)
            raise
        if not is_empty:  # it had no marker
            self._nursery.start_soon(self.give_up, move)
            raise FileError(errno.ENOTEMPTY, move.target)

    async def _objects(self, source: str, target: str) -> list[_Object]:
        """Return what there is to rename; what a crash let go already is not there any more."""
        if not source.endswith("/"):
            try:
                known = await self._metadata.settled(source)
            except NotFound:
                return []
            return [_Object(known.info, known.attributes, target)]
        objects: list[_Object] = []
        after = ""
        while infos := await self._metadata.below(source, after):
            for info in infos:
                known = await self._metadata.look_up(info.key)
                to = target + info.key.removeprefix(source)
                objects.append(_Object(known.info, known.attributes, to))
            after = infos[-1].key
        return objects

    async def _copy_all(self, objects: list[_Object], copies: dict[str, ObjectInfo]) -> None:
        errors: list[StoreError] = []
        limiter = trio.CapacityLimiter(COPIES_AT_ONCE)

        async def copy(one: _Object) -> None:
            try:
                async with limiter:
                    copies[one.info.key] = await self.copy(one.info, one.attributes, one.target)
            except NotFound:
                log.debug("%r is not there any more", one.info.key)
            except StoreError as error:
                errors.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for one in objects:
                nursery.start_soon(copy, one)
        if errors:
            raise errors[0]

    async def _undo(self, keys: list[str]) -> None:
        try:
            failed = list(await self._store.patient(UNDO_PATIENCE).delete(keys))
        except StoreError:
            failed = keys
        if failed:
            log.warning("a rename failed; %d of its copies stay, as %r", len(failed), min(failed))

    async def _move_directories(self, move: Move, objects: list[_Object]) -> None:
        """Have the metadata cache know the directories, empty, before it knows what is in them."""
        prefixes = {move.source}
        for one in objects:
            prefix = parent_of(one.info.key)
            while prefix not in prefixes and prefix.startswith(move.source):
                prefixes.add(prefix)
                prefix = parent_of(prefix[:-1])
        for prefix in sorted(prefixes):
            attributes = await self._attributes_of(prefix)
            target = move.target + prefix.removeprefix(move.source)
            if prefix == move.source:
                attributes = _renamed(attributes)
            await self._metadata.directory_made(target, attributes)

    async def _attributes_of(self, prefix: str) -> Attributes | None:
        parent = parent_of(prefix[:-1])
        try:
            name = name_of(prefix[len(parent) : -1])
            found = await self._metadata.look_up_name(parent, name)
        except NotFound:
            return None
        return found.attributes if isinstance(found, Subdirectory) else None

    async def _delete(self, keys: list[str]) -> None:
        failed = await self._store.delete(keys)
        await self._metadata.removed([key for key in keys if key not in failed])
        for error in failed.values():
            raise error


def _purpose(move: Move) -> str:
    return f"rename-{move.number}"


def _renamed(attributes: Attributes | None) -> Attributes | None:
    """Return `attributes` with the time of a rename, which the cache alone keeps."""
    return None if attributes is None else replace(attributes, ctime_ns=time.time_ns())

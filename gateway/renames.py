"""Renames in the store: copies on the store's side, then deletes, journalled so that a crash
finishes them.

All copies exist before the first original goes, so whoever looks at the store meanwhile misses
nothing, and doing it twice does no harm. One whose copies fail is taken back: they are deleted
again, those too of which the store did not say whether it made them.
"""

import errno
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial

import trio
from msgspec.structs import replace

from backgate.gateway.attributes import Attributes
from backgate.gateway.copies import Copies
from backgate.gateway.deletions import still
from backgate.gateway.errors import BackgateError, FileError, NotFound, StoreError
from backgate.gateway.journal import Journal
from backgate.gateway.keys import name_of, parent_of
from backgate.gateway.metadata.cache import Metadata
from backgate.gateway.metadata.rows import Subdirectory
from backgate.gateway.moves import Moves, purpose_of
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.records import Move
from backgate.gateway.store import ObjectStore
from backgate.gateway.taking import Taking
from backgate.gateway.turns import Turns

COPIES_AT_ONCE = 16  # objects of one directory
UNDO_PATIENCE = 30.0  # seconds; the store has just failed for as long as it may

log = logging.getLogger(__name__)

OnMoved = Callable[[str, ObjectInfo], None]  # told the old key and the object as it is now


@dataclass(frozen=True, slots=True)
class _Object:
    info: ObjectInfo
    attributes: Attributes | None
    target: str


@dataclass(frozen=True, slots=True)
class _Copied:
    """What there was to rename, and what the store says of the copies, by key of the original."""

    move: Move
    objects: list[_Object]
    infos: dict[str, ObjectInfo] = field(default_factory=dict)


class Renames:
    """Renames objects of one store, with what the metadata cache knows of them."""

    def __init__(
        self,
        store: ObjectStore,
        metadata: Metadata,
        journal: Journal,
        copies: Copies,
        taking: Taking,
        moves: Moves,
        turns: Turns,
    ) -> None:
        self._store, self._metadata, self._journal = store, metadata, journal
        self.copies, self._taking, self._moves, self._turns = copies, taking, moves, turns

    async def rename(self, source: str, target: str, on_moved: OnMoved) -> None:
        """Rename the object `source`; one that ends in "/" is a directory with all below it.

        `on_moved` hears of each copy before its original goes. Raises `StoreError`: `NotFound` for
        a file that is not there. Then all is as it was, unless it says that originals could not be
        deleted: those are there twice. After cancellation the next start of the gateway finishes
        it.
        """
        move = await self._moves.announced(source, target, is_taken=True)
        with self._moves.forgotten_if_it_fails(move):
            copied = await self._copied(move)
            await self._expect_some(copied)
            await self._replace(copied, on_moved)

    async def rename_to_new(self, source: str, target: str, on_moved: OnMoved) -> None:
        """Rename as `rename` does, to a name that nobody has, as the store decides.

        Raises `FileError` too: ENOTEMPTY for a directory that somebody has, EEXIST for a file.
        """
        move = await self._moves.announced(source, target, is_taken=False)
        await self._take(move)
        try:
            self._journal.append(replace(move, is_taken=True))
            await self._journal.synchronize()
            copied = await self._copied(move, is_marked=True)
            await self._expect_some(copied)
            await self._expect_alone(copied)
        except (BackgateError, OSError):
            self._journal.append(move)
            self._moves.give_up_behind(move)
            raise
        with self._moves.forgotten_if_it_fails(move):
            await self._replace(copied, on_moved)

    async def link(
        self, info: ObjectInfo, attributes: Attributes | None, target: str
    ) -> ObjectInfo:
        """Copy an object to a name that nobody has; where others write too, as the store decides.

        Raises `FileError` (EEXIST) too.
        """
        if not self._taking.asks_store:
            return await self.copies.copy(info, attributes, target)
        move = await self._moves.announced(info.key, target, is_taken=False)
        await self._take(move)
        try:
            copy = await self.copies.copy(info, attributes, target)
        except StoreError:
            self._moves.give_up_behind(move)
            raise
        self._moves.ended(move)
        return copy

    async def finish(self, move: Move, on_moved: OnMoved) -> None:
        """Do what is left to do of a rename that a crash cut off; `StoreError` when it cannot be.

        That nothing is there any more is no error: it was finished.
        """
        await self._replace(await self._copied(move, is_resumed=True), on_moved)

    async def copy(self, info: ObjectInfo, attributes: Attributes | None, key: str) -> ObjectInfo:
        """Copy an object of any size; its metadata goes along."""
        return await self.copies.copy(info, attributes, key)

    async def _take(self, move: Move) -> None:
        is_directory = move.target.endswith("/")
        try:
            async with self._turns.turn(move.target) as if_absent:
                purpose = purpose_of(move)
                await self._taking.take(move.target, None, purpose, if_absent=if_absent)
        except FileError as error:
            self._moves.ended(move)
            if is_directory and error.errno == errno.EEXIST:
                raise FileError(errno.ENOTEMPTY, move.target) from None
            raise
        except StoreError:
            self._moves.give_up_behind(move)  # what was asked may still be done
            raise
        if not is_directory:
            return
        try:
            is_empty = await self._metadata.is_empty_in_store(move.target)
        except StoreError:
            self._moves.give_up_behind(move)
            raise
        if not is_empty:  # it had no marker
            self._moves.give_up_behind(move)
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

    async def _copied(
        self, move: Move, *, is_marked: bool = False, is_resumed: bool = False
    ) -> _Copied:
        """Copy all that there is to rename; when something cannot be, nothing is left of it.

        With `is_marked` the marker of the new directory keeps the mark of who took its name: so
        one that has to be given back is known, whatever became of the attempt to make it. Of what
        `is_resumed` only copies are taken back that are known as such: the original of another may
        be gone.
        """
        copied = _Copied(move, await self._objects(move.source, move.target))
        is_new = move.is_directory and not is_marked and not await self._is_known(move.target)
        limiter = trio.CapacityLimiter(COPIES_AT_ONCE)
        errors: list[BackgateError | OSError] = []
        made: set[str] = set()  # keys of copies that are there, or may be

        async def copy(one: _Object) -> None:
            async with limiter:
                if errors:
                    return  # those under way go on: what is taken back must be there, or not come
                if not is_resumed:
                    made.add(one.target)
                try:
                    copied.infos[one.info.key] = await self._copy(one, move, is_marked=is_marked)
                    made.add(one.target)
                except NotFound:
                    made.discard(one.target)
                    log.debug("%r is not there any more", one.info.key)
                except (BackgateError, OSError) as error:
                    errors.append(error)

        async with trio.open_nursery() as nursery:
            for one in copied.objects:
                nursery.start_soon(copy, one)
        if errors:
            await self._undo(made if is_new else made - {move.target})
            raise errors[0]
        return copied

    async def _copy(self, one: _Object, move: Move, *, is_marked: bool) -> ObjectInfo:
        is_marker = move.is_directory and one.target == move.target and not one.info.size
        if not (is_marked and is_marker):
            return await self.copy(one.info, one.attributes, one.target)
        kept = (await self._store.head(one.info.key)).metadata or {}
        marked = self._taking.marked(kept, purpose_of(move))
        return await self._store.put(one.target, b"", marked)

    async def _is_known(self, key: str) -> bool:
        try:
            await self._metadata.look_up(key)
        except NotFound:
            return False
        return True

    async def _expect_some(self, copied: _Copied) -> None:
        """Raise `NotFound` for a file that somebody else has renamed or deleted."""
        move = copied.move
        if not copied.infos and not move.is_directory:
            await self._taking.learn(move.source)
            raise NotFound(f"{self._store.name}: no object {move.source!r}", key=move.source)

    async def _expect_alone(self, copied: _Copied) -> None:
        """Raise `FileError` (ENOTEMPTY) when another gateway put something into the new directory.

        Until the first copy was in it, it was empty, so another could remove it and take its name.
        Each looks when its own copies are there: the one that is later finds the other's.
        """
        target = copied.move.target
        if not copied.move.is_directory:
            return
        ours = {one.target for one in copied.objects} | {target}
        token: str | None = None
        while True:
            page = await self._store.page(target, token=token)
            for info in page.objects:
                is_above = info.key.endswith("/") and any(key.startswith(info.key) for key in ours)
                if info.key not in ours and not is_above:
                    await self._undo(ours - {target})
                    raise FileError(errno.ENOTEMPTY, target, f"another gateway put {info.key!r}")
            token = page.token
            if token is None:
                return

    async def _undo(self, keys: Collection[str]) -> None:
        try:
            failed: Collection[str] = await self._store.patient(UNDO_PATIENCE).delete(sorted(keys))
        except StoreError:
            failed = keys
        if failed:
            log.warning(
                "a rename failed; %d of its copies may stay, as %r", len(failed), min(failed)
            )

    async def _replace(self, copied: _Copied, on_moved: OnMoved) -> None:
        """Have the copies known, and delete the originals."""
        move = copied.move
        if move.is_directory:
            await self._move_directories(move, copied.objects)
        for one in copied.objects:
            copy = copied.infos.get(one.info.key)
            if copy is not None:
                is_top = one.target == move.target
                attributes = _renamed(one.attributes) if is_top else one.attributes
                await self._metadata.stored(copy, attributes)
                on_moved(one.info.key, copy)
        await self._journal.synchronize()  # from here on the originals may be gone
        await self._delete(move, {one.info.key: one.info for one in copied.objects})
        if move.is_directory:
            await self._metadata.directory_removed(move.source)
        self._moves.ended(move)
        await self._journal.synchronize()

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

    async def _delete(self, move: Move, originals: dict[str, ObjectInfo]) -> None:
        keys, known = list(originals), originals if self._taking.asks_store else {}
        try:
            failed = await self._store.delete(keys, partial(still, self._store, known))
        except StoreError as error:
            failed = dict.fromkeys(keys, error)
        await self._metadata.removed([key for key in keys if key not in failed])
        for key, reason in failed.items():
            text = (
                f"{move.source!r} was copied to {move.target!r}, and {len(failed)} of {len(keys)}"
                f" originals could not be deleted: {reason}"
            )
            raise (type(reason) if isinstance(reason, StoreError) else StoreError)(text, key=key)


def _renamed(attributes: Attributes | None) -> Attributes | None:
    """Return `attributes` with the time of a rename, which the cache alone keeps."""
    return None if attributes is None else replace(attributes, ctime_ns=time.time_ns())

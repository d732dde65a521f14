"""Renames in the store: copies on the store's side, then deletes, journalled so that a crash
finishes them.

All copies exist before the first original goes, so whoever looks at the store meanwhile misses
nothing, and doing it twice does no harm. One whose copies fail is taken back: they are deleted
again, those too of which the store did not say whether it made them.
"""

import errno
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from backgate.gateway.attributes import Attributes
from backgate.gateway.copies import Copies
from backgate.gateway.errors import BackgateError, FileError, NotFound, StoreError
from backgate.gateway.journal import Journal
from backgate.gateway.keys import name_of, parent_of
from backgate.gateway.metadata.cache import Metadata
from backgate.gateway.metadata.rows import Subdirectory
from backgate.gateway.moves import Moves, purpose_of
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.records import Move
from backgate.gateway.remains import Looking, Remains, Renamed
from backgate.gateway.store import ObjectStore
from backgate.gateway.taking import Taking
from backgate.gateway.transfers import Copied, Transfers
from backgate.gateway.turns import Turns

CHANGED = "%r stays: another gateway changed it, or its copy, while it was renamed"

log = logging.getLogger(__name__)

OnMoved = Callable[[str, ObjectInfo], None]  # told the old key and the object as it is now


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
        self._looking = Looking(store, taking)
        self._transfers = Transfers(store, metadata, copies, taking)

    async def rename(self, source: str, target: str, on_moved: OnMoved) -> None:
        """Rename the object `source`; one that ends in "/" is a directory with all below it.

        `on_moved` hears of each copy before its original goes. Raises `StoreError`: `NotFound` for
        a file that is not there. Then all is as it was, unless it says that originals could not be
        deleted: those are there twice. After cancellation the next start of the gateway finishes
        it.
        """
        move = await self._moves.announced(source, target, is_taken=True)
        with self._moves.forgotten_if_it_fails(move):
            copied = await self._transfers.copied(move)
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
            copied = await self._transfers.copied(move, is_marked=True)
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

        That nothing is there any more is no error: it was finished. Where others write too it is
        taken back, with a `FileError`, when one of them has put something there meanwhile.
        """
        if not self._taking.is_shared:
            await self._replace(await self._transfers.copied(move, is_resumed=True), on_moved)
            return
        await self._look_again(move.source)
        objects = await self._transfers.objects(move.source, move.target)
        remains = await self._looking.remains(move, objects)
        try:
            if move.is_copied:
                done = remains.done_with()
                stay = remains.originals.keys() - done.keys()
                some = [one for one in objects if one.info.key not in stay]
                for key in sorted(stay):
                    if not key.endswith("/"):  # which stays because something in it does
                        log.warning(CHANGED, key)
                await self._replace(Copied(move, some, remains.copies, done), on_moved)
            else:
                await self._expect_nothing_strange(move, objects, remains)
                copied = await self._transfers.copied(move, remains=remains)
                await self._expect_alone(copied)
                await self._replace(copied, on_moved)
        finally:
            await self._look_again(move.source)
            await self._look_again(move.target)

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

    async def _expect_some(self, copied: Copied) -> None:
        """Raise `NotFound` for a file that somebody else has renamed or deleted."""
        move = copied.move
        if not copied.infos and not move.is_directory:
            await self._taking.learn(move.source)
            raise NotFound(f"{self._store.name}: no object {move.source!r}", key=move.source)

    async def _expect_alone(self, copied: Copied) -> None:
        """Raise `FileError` (ENOTEMPTY) when another gateway put something into the new directory.

        Until the first copy was in it, it was empty, so another could remove it and take its name.
        Each looks when its own copies are there: the one that is later finds the other's.
        """
        target = copied.move.target
        if not copied.move.is_directory:
            return
        ours = {one.target for one in copied.objects} | {target}
        strange = await self._looking.stranger(target, ours)
        if strange is not None:
            await self._transfers.undo(ours - {target}, copied)
            raise FileError(errno.ENOTEMPTY, target, f"another gateway put {strange!r}")

    async def _expect_nothing_strange(
        self, move: Move, objects: list[Renamed], remains: Remains
    ) -> None:
        """Raise `FileError` when another gateway put something there after the crash."""
        ours = {one.target for one in objects} | {move.target}
        strange = min(remains.strange, default=None)
        if strange is None and move.is_directory:
            strange = await self._looking.stranger(move.target, ours)
        if strange is None:
            return
        copied = Copied(move, objects, remains.copies)
        await self._transfers.undo(
            {one.key for one in remains.copies.values()} - {move.target}, copied
        )
        code = errno.ENOTEMPTY if move.is_directory else errno.EEXIST
        raise FileError(code, move.target, f"another gateway put {strange!r}: it is as it was")

    async def _look_again(self, key: str) -> None:
        """Have the index know what others have made of `key`, and all below it, meanwhile."""
        with suppress(StoreError):  # then later
            await (self._metadata.confirm(key) if key.endswith("/") else self._taking.learn(key))

    async def _replace(self, copied: Copied, on_moved: OnMoved) -> None:
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
        self._journal.append(replace(move, is_taken=True, is_copied=True))
        await self._journal.synchronize()  # from here on the originals may be gone
        kept = await self._transfers.delete(move, copied)
        if move.is_directory:
            await self._metadata.directory_removed(move.source)
        for key in kept:
            log.warning(CHANGED, key)
            await self._look_again(key)
        self._moves.ended(move)
        await self._journal.synchronize()

    async def _move_directories(self, move: Move, objects: list[Renamed]) -> None:
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


def _renamed(attributes: Attributes | None) -> Attributes | None:
    """Return `attributes` with the time of a rename, which the cache alone keeps."""
    return None if attributes is None else replace(attributes, ctime_ns=time.time_ns())

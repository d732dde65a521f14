"""The spool: files that are being written, staged, or could not be stored yet, on the gateway's own
disk.

A file that is closed is in the store when `flush` returns, and then leaves the spool. One whose
name is staged stays until it is renamed, or until nobody has renamed it for a while. One that could
not be stored stays, listed, and is tried again. `recovery.open_spool` opens a spool.

With `is_lazy` (durability = "journal") flush returns once the bytes are safe on this disk, and
files are stored behind it, epoch by epoch: nothing of a later epoch is seen in the store before all
of an earlier one. What a run of that kind left goes first in one of the other, too.
"""

import logging

import trio

from backgate.gateway.attributes import Attributes
from backgate.gateway.backlog import Backlog, LeftOver
from backgate.gateway.errors import BackgateError, FileError, StoreError
from backgate.gateway.intake import Intake
from backgate.gateway.keeping import Keeping
from backgate.gateway.pending import FILES, Pending, WaitedFor
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data
from backgate.gateway.spool_parts import Parts
from backgate.gateway.spooled import SpooledFile
from backgate.gateway.taking import purpose_of

log = logging.getLogger(__name__)


class Spool:
    """All files between the tools and the store."""

    def __init__(
        self, parts: Parts, last_number: int, *, is_lazy: bool, was_lazy: bool = False
    ) -> None:
        self.store, self.metadata, self.sources = parts.store, parts.metadata, parts.sources
        self.claims, self.deletions = parts.claims, parts.deletions
        self.asides, self.renames, self.journal = parts.asides, parts.renames, parts.journal
        self.staged, self.shelf, self.taking = parts.staged, parts.shelf, parts.taking
        self.turns = parts.turns
        self._files = parts.directory / FILES
        self._room, self._uploader, self._nursery = parts.room, parts.uploader, parts.nursery
        self._last_number = last_number
        self.is_lazy = is_lazy
        self._keeping = Keeping(parts.journal)
        self.left_over: dict[int, LeftOver] = {}  # by number; no tool was told that they are safe
        self._backlog = Backlog(self, inherits=was_lazy and not is_lazy)
        self._intake = Intake(parts, self._keeping, self._backlog, is_lazy=is_lazy)
        self.is_recovered = trio.Event()  # what an earlier run began in the store has ended

    @property
    def used(self) -> int:
        """How many bytes the files take on the gateway's disk."""
        return self._room.used

    @property
    def limit(self) -> int:
        """How many bytes they may take."""
        return self._room.limit

    def writing(self, key: str) -> SpooledFile | None:
        """Return the file `key` as it is in the spool; None when the store has it as it is."""
        return self.shelf.get(key)

    def create(self, key: str, attributes: Attributes) -> SpooledFile:
        """Open a new, empty file, which nobody has under that key."""
        file = self._new(key, attributes)
        file.version += 1
        self._keeping.note(file)
        self.shelf.add(file)
        return file

    async def take(self, key: str, attributes: Attributes) -> SpooledFile:
        """Open a new, empty file, of which the store has said that it is ours alone."""
        file = self._new(key, attributes)
        file.is_taken = True
        self._keeping.note(file)  # a crash from here on gives it back
        try:
            purpose = purpose_of(file.number, file.since_ns)
            file.start_from(await self.taking.take(key, attributes, purpose))
        except FileError:
            self._keeping.note_done(file)
            raise
        except StoreError:
            self._nursery.start_soon(self._give_back, file)  # what was asked may still be done
            raise
        self.shelf.add(file)
        return file

    def open(self, info: ObjectInfo, attributes: Attributes) -> SpooledFile:
        """Open the object `info` for writing; it is copied where it is not overwritten."""
        file = self.shelf.get(info.key)
        if file is None:
            file = self._new(info.key, attributes)
            file.start_from(info)
            self.shelf.add(file)
        return self.hold(file)

    def hold(self, file: SpooledFile) -> SpooledFile:
        """Note that one more has `file` open; each is to be released."""
        file.opens += 1
        return file

    async def write(self, file: SpooledFile, offset: int, data: Data) -> None:
        """Put `data` at `offset`; raises what `Intake.write` does."""
        await self._intake.write(file, offset, data)

    async def truncate(self, file: SpooledFile, size: int) -> None:
        """Make the file `size` bytes long."""
        await self._intake.truncate(file, size)

    async def synchronize(self, file: SpooledFile) -> None:
        """fsync: return once bytes and journal are on disk; they survive whatever comes."""
        await self._keeping.synchronize(file)

    async def flush(self, file: SpooledFile) -> None:
        """close: return once the file is stored, or at once when its name is staged.

        Raises `StoreError` when it cannot be stored before the deadline; then it stays here and is
        tried again.
        """
        while (key := file.key) is not None and file.is_dirty:
            self._keeping.note_closed(file)
            if self.staged.matches(key):
                await self.stay(file)
                return
            if self.is_lazy:
                await self.stay(file)
                return
            await self._backlog.caught_up(file)
            async with self.claims.claim(key):
                if file.key == key:
                    await self.publish(file, key)
                    return
        if file.is_taken and not file.is_dirty:
            file.is_taken = False
            await self._keeping.settle(file)  # it is empty, and is to stay
            await self.journal.synchronize()

    async def publish(self, file: SpooledFile, key: str) -> None:
        """Store the file under `key` and give it that name; who calls has claimed both.

        From one moment to the next the file is stored, listed and named so. Raises `StoreError`,
        and then nothing has changed.
        """
        async with file.publishing:
            if not file.is_dirty and file.key == key:
                return
            version = file.version
            try:
                info = await self._uploader.store(file, key)
                await self._note_stored(file, info)
            except (BackgateError, OSError) as error:
                if file.key == key:
                    await self._failed(file, error)
                raise
            file.stored_as(info, version)  # known already where listings look
            if file.key is not None and file.key != key:
                self.renamed(file, key)
            await self._keeping.settle(file)
            self.asides.remove(file.unneeded())
            self._moved()

    async def release(self, file: SpooledFile) -> None:
        """One who had the file open is gone."""
        file.opens -= 1
        if file.opens > 0:
            return
        if file.key is None or not file.is_dirty:
            self._forget(file)
            return
        file.rest()
        if not file.is_waiting:  # written through a mapping, after the last close
            self._keeping.note_closed(file)
        self._backlog.wake()

    async def stay_as(self, file: SpooledFile, key: str) -> None:
        """Rename a file that is to be stored later, in an epoch of its own."""
        self.end_epoch()
        self.renamed(file, key)
        if not self.staged.matches(key):
            self._keeping.note_closed(file)
        await self.stay(file)

    def renamed(self, file: SpooledFile, key: str) -> None:
        """Give a file of the spool another name; what had it loses it."""
        replaced = self.shelf.get(key)
        replaced = None if replaced is file else replaced
        self._keeping.note_named(file, key, replaced)
        if replaced is not None:
            self.unlinked(replaced)
        self.shelf.rename(file, key)

    def unlinked(self, file: SpooledFile) -> None:
        """Take its name from a file; it lives on for those who have it open.

        Whoever was the last of them may have closed it since it was looked up: then it is gone.
        """
        if file.is_disposed:
            return
        self.shelf.rename(file, None)
        self._keeping.note_done(file)
        self._uploader.give_up(file)
        if file.opens == 0:
            self._forget(file)
        self._moved()

    def pending(self) -> list[Pending]:
        """Return everything that is here and not in the store."""
        return self._backlog.pending()

    def waited_for(self) -> WaitedFor:
        """Return what `drained` would wait for now."""
        return self._backlog.waited_for()

    async def drained(self) -> None:
        """Return once everything that was closed is in the store; staged files under their own
        names.

        What cannot be stored is tried again until the caller gives up.
        """
        await self._backlog.drained()

    async def retry(self, key: str | None = None) -> None:
        """Try now to store what waits, failed or was left over; only `key` if given.

        Raises `StoreError` when it fails again, `FileError` (ENOENT) for a key that is not here.
        """
        await self._backlog.retry(key)

    async def discard(self, key: str) -> None:
        """Drop for good what is here under `key` and not in the store.

        Raises `FileError`: ENOENT for a key that is not here, EBUSY when somebody has it open.
        """
        await self._backlog.discard(key)

    async def keep_trying(self) -> None:
        """Store what waits, in the order of its epochs, for as long as the spool is open."""
        await self._backlog.keep_trying()

    def end_epoch(self) -> None:
        """Let nothing that is closed from now on be seen in the store before all that was."""
        self._keeping.epoch += 1

    async def settled(self, but: str = "") -> None:
        """Return once nothing acknowledged waits: what comes next may be seen in the store.

        A file `but` that is only here needs no waiting for: it takes its turn.
        """
        file = self.shelf.get(but)
        is_only_here = file is not None and file.is_dirty and file.is_new
        if not self.is_lazy:
            await self._backlog.caught_up(file)
        elif not is_only_here:
            await self._backlog.settled()

    def close(self) -> None:
        """Let go of all files; nothing is asked of the spool afterwards."""
        count = 0
        for file in self.shelf:
            count += file.opens > 0 and file.key is not None and file.is_dirty
            file.rest()
        self.asides.close()
        if count:
            log.warning(
                "%d files are still open for writing: they are kept in the spool, not stored", count
            )

    def set_attributes(self, file: SpooledFile, attributes: Attributes) -> None:
        """Give the file attributes, which it takes along when it is stored, also after a crash."""
        file.set_attributes(attributes)
        self._keeping.note_attributes(file)

    def adopt(self, file: SpooledFile) -> None:
        """Take up a file that an earlier run of the gateway left."""
        self.shelf.add(file)
        self._keeping.epoch = max(self._keeping.epoch, file.epoch + 1)
        self._backlog.wake()

    def moved(self, key: str, info: ObjectInfo) -> None:
        """Note that the object `key` is now `info`: what began from it goes on from there."""
        file = self.shelf.get(key)
        if file is not None:
            self._keeping.note_moved(file, key, info)

    def moved_below(self, source: str, target: str) -> None:
        """Give all files below the prefix `source`, or the file of that key, their new names."""
        files = self.shelf.below(source) if source.endswith("/") else [self.shelf.get(source)]
        for file in files:
            if file is not None and file.key is not None:
                self.renamed(file, target + file.key.removeprefix(source))

    def drop_if_done(self, file: SpooledFile) -> None:
        """Free a file that is stored and that nobody has open."""
        if file.opens == 0 and not file.is_dirty and not file.is_disposed:
            self._forget(file)

    def made(self, number: int, key: str, attributes: Attributes) -> SpooledFile:
        """Return an empty file of the spool that is on no shelf yet."""
        path = self._files / str(number)
        return SpooledFile(number, path, key, attributes, self.sources, self._room.account)

    def _new(self, key: str, attributes: Attributes) -> SpooledFile:
        self._last_number += 1
        return self.made(self._last_number, key, attributes)

    async def stay(self, file: SpooledFile) -> None:
        """Keep a file that is to be stored later; a crash of the gateway does not harm it."""
        is_staged = self.staged.matches(file.key or "")
        if file.is_durable or (self.is_lazy and not is_staged):
            await self.synchronize(file)
        else:
            self._keeping.note_changed(file)
        self._backlog.wake()

    async def _note_stored(self, file: SpooledFile, info: ObjectInfo) -> None:
        """Have the index know what was stored, with the attributes that the file has by then."""
        version = -1
        while version != file.attributes_version:
            version = file.attributes_version
            await self.metadata.stored(info, file.attributes)

    async def _failed(self, file: SpooledFile, error: Exception) -> None:
        """Keep what could not be stored safe from whatever comes, with the reason."""
        file.reason, file.flushed_at = str(error), trio.current_time()
        try:
            await self.synchronize(file)
        except OSError as failure:
            file.reason += f"; and it is not safe from a crash: {failure}"
        self._backlog.wake()
        self._moved()

    async def _give_back(self, file: SpooledFile) -> None:
        await self.taking.surely_give_back(file.key or "", purpose_of(file.number, file.since_ns))
        self._keeping.note_done(file)

    def _moved(self) -> None:
        """Wake who waits for room, or for what was acknowledged, to look again."""
        self._backlog.moved()
        self._room.changed()

    def _forget(self, file: SpooledFile) -> None:
        """Free everything of a file that nobody has open."""
        self._uploader.give_up(file)
        self.shelf.remove(file)
        file.dispose()
        self.asides.remove(file.unneeded())
        self._keeping.note_done(file)  # last: it takes room on a disk that may be full

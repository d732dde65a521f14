"""Keep the journal in line with the files of a spool: what a crash must spare is said before it is
promised.
"""

import trio
from msgspec.structs import replace

from backgate.gateway.extents import Backing
from backgate.gateway.journal import Journal
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.records import Attributed, Elsewhere, Gone, Held, Named
from backgate.gateway.spooled import SpooledFile


class Keeping:
    """What the journal says of the files of one spool."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.epoch = 0  # nothing closed in one is seen in the store before all of earlier ones

    def note(self, file: SpooledFile) -> None:
        """Have the journal know that the file exists, before it holds anything of its own."""
        if not file.is_recorded and file.key is not None:
            self._append(file)

    def note_changed(self, file: SpooledFile) -> None:
        """Have the journal know the file as it is now, unless it knows more for sure."""
        if file.key is not None and not file.is_durable:
            self._append(file)

    def note_closed(self, file: SpooledFile) -> None:
        """Note the time of a close, and its epoch."""
        file.flushed_version, file.flushed_at = file.version, trio.current_time()
        file.epoch = self.epoch

    def note_named(self, file: SpooledFile, key: str, replaced: SpooledFile | None) -> None:
        """Note that the file is named `key`, in place of what was, in one step."""
        if file.is_recorded:
            self._journal.append(Named(file.number, key, replaced.number if replaced else 0))

    def note_attributes(self, file: SpooledFile) -> None:
        """Note the attributes that the file has now."""
        if file.is_recorded:
            self._journal.append(Attributed(file.number, file.attributes))

    def note_moved(self, file: SpooledFile, key: str, info: ObjectInfo) -> None:
        """Note that the object `key`, which holds bytes of the file, is now `info`."""
        file.backing.moved(key, info)
        if file.is_recorded:
            self._journal.append(Elsewhere(key, Held.of(Backing(0, 0, info, 0))))

    def note_done(self, file: SpooledFile) -> None:
        """Note that nothing needs to be done for the file any more."""
        if file.is_recorded:
            self._journal.append(Gone(file.number))
        file.is_recorded = file.is_durable = False

    async def synchronize(self, file: SpooledFile) -> None:
        """Return once the file's bytes and the journal are on disk."""
        async with file.recording:
            while file.key is not None and file.is_dirty:
                if not file.is_durable and not file.is_waiting:
                    file.epoch = self.epoch
                record, truncations = file.record(is_durable=True), file.truncations
                await file.synchronize()
                if truncations != file.truncations:
                    continue  # what was synchronized is not what the record says
                if file.key is None or not file.is_dirty:
                    break  # it was stored or removed meanwhile
                now = file.record(is_durable=True, size=record.size)  # it may have been renamed
                self._journal.append(
                    replace(record, key=now.key, attributes=now.attributes, held=now.held)
                )
                file.is_durable = file.is_recorded = True
                break
        await self._journal.synchronize()

    async def announce_truncation(self, file: SpooledFile, size: int) -> None:
        """Have the journal say the new size first: it must not promise bytes that are cut off."""
        if not file.is_durable:
            return
        await self.synchronize(file)
        async with file.recording:
            if file.is_durable:
                self._journal.append(file.record(is_durable=True, size=size))
                await self._journal.synchronize()

    async def settle(self, file: SpooledFile) -> None:
        """Bring the journal in line with a file that was just stored."""
        was_durable = file.is_durable
        if not file.is_dirty:
            self.note_done(file)
        elif file.is_recorded:
            file.is_durable = False
            await self.synchronize(file)
        if was_durable:
            await self._journal.synchronize()

    def _append(self, file: SpooledFile) -> None:
        self._journal.append(file.record(is_durable=False))
        file.is_recorded = True

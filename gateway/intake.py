"""How the bytes of tools come into files of the spool: there is room for them first, nobody is
sending what they replace, and full parts leave again while the tool still writes.
"""

import errno
import logging

from backgate.gateway.backlog import Backlog
from backgate.gateway.errors import FileError
from backgate.gateway.keeping import Keeping
from backgate.gateway.source import Data
from backgate.gateway.spool_parts import Parts
from backgate.gateway.spooled import SpooledFile

log = logging.getLogger(__name__)


class Intake:
    """Writes into the files of one spool; with `is_lazy` not before what was closed is stored."""

    def __init__(self, parts: Parts, keeping: Keeping, backlog: Backlog, *, is_lazy: bool) -> None:
        self._room, self._leaving, self._staged = parts.room, parts.leaving, parts.staged
        self._uploader, self._keeping, self._backlog = parts.uploader, keeping, backlog
        self._is_lazy = is_lazy
        self._is_disk_full = False

    async def write(self, file: SpooledFile, offset: int, data: Data) -> None:
        """Put `data` at `offset`; waits for room in the spool.

        Raises `FileError`: EFBIG, ENOSPC when the gateway's disk is full of what cannot leave it;
        `StoreError` when room can only be made by a store that does not answer.
        """
        stop = offset + len(data)
        self._expect_length(file, stop)
        await self._stored(file)
        if self._room.used + len(data) > self._room.limit:
            await self._leaving.room(len(data), self._backlog)
        if file.is_sending:
            await file.arrived(offset, stop)
        self._keeping.note(file)
        while True:
            try:
                file.write(offset, data)
                break
            except FileError as error:
                if error.errno != errno.ENOSPC or not await self._leaving.freed(self._backlog):
                    self._disk_failed(error)
                    raise
            await file.arrived(offset, stop)
        self._is_disk_full = False
        self._send_ahead(file, offset, stop)

    async def truncate(self, file: SpooledFile, size: int) -> None:
        """Make the file `size` bytes long."""
        self._expect_length(file, size)
        if size == file.size:
            return
        await self._stored(file)
        if size >= file.size:
            self._keeping.note(file)
            file.truncate(size)
            return
        async with file.publishing:
            await self._keeping.announce_truncation(file, size)
            await file.arrived(size, file.size)  # nothing is awaited from here on
            file.truncate(size)
            self._keeping.note_changed(file)

    def _expect_length(self, file: SpooledFile, size: int) -> None:
        if size > self._uploader.plan.largest:
            raise FileError(errno.EFBIG, file.key or "")

    async def _stored(self, file: SpooledFile) -> None:
        """Return once what was closed of `file` is stored, where that happens later."""
        while self._is_lazy and file.is_waiting and not self._staged.matches(file.key or ""):
            await self._backlog.settled()

    def _send_ahead(self, file: SpooledFile, offset: int, stop: int) -> None:
        key, plan = file.key, self._uploader.plan
        if key is None or plan.number_at(offset) == plan.number_at(stop):
            return  # no part was filled
        if self._staged.matches(key) or (file.backing and file.upload is None):
            if self._room.is_pressed:
                self._leaving.leave(file)
        else:
            self._uploader.advance(file)

    def _disk_failed(self, error: FileError) -> None:
        if error.errno == errno.ENOSPC and not self._is_disk_full:
            self._is_disk_full = True
            log.error("no space left in the spool: %s", error)

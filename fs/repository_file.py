"""A file of the repository that is open for writing, as the tree's contract has it."""

import dataclasses
import time
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from backgate.fs.repository_attributes import changed
from backgate.fs.repository_entries import Entries
from backgate.fs.tree import Changes, Entry
from backgate.gateway.attribute_changes import AttributeChanges
from backgate.gateway.errors import Replaced
from backgate.gateway.source import Data
from backgate.gateway.spool import Spool
from backgate.gateway.spooled import SpooledFile


@dataclass(frozen=True, slots=True)
class Parts:
    """What a file has of its repository."""

    spool: Spool
    entries: Entries
    attributes: AttributeChanges


class RepositoryFile:
    """One open of a file of the spool; all opens of one file share its bytes."""

    def __init__(self, parts: Parts, file: SpooledFile, name: bytes) -> None:
        self._spool, self._entries, self._attributes = parts.spool, parts.entries, parts.attributes
        self._file, self._name = file, name
        self._is_released = False

    @property
    def size(self) -> int:
        return self._file.size

    @property
    def entry(self) -> Entry:
        """The file as stat(2) should show it now."""
        entry = self._entries.spooled(self._name, self._file)
        return entry if self._file.key is not None else replace(entry, nlink=0)

    async def read_at(self, offset: int, length: int) -> Data:
        self._spool.hold(self._file)  # whoever has it open may close it meanwhile
        try:
            return await self._read_at(offset, length)
        finally:
            await self._spool.release(self._file)

    async def _read_at(self, offset: int, length: int) -> Data:
        file, stop = self._file, offset + length
        while True:
            held = file.backing.within(offset, stop)
            try:
                return await file.read_at(offset, length)
            except Replaced:
                async with self._spool.claims.claim(*{one.info.key for one in held}):
                    pass  # who was copying it onto itself has told where it is now
                if held == file.backing.within(offset, stop):
                    raise

    async def write_at(self, offset: int, data: bytes | memoryview) -> None:
        await self._spool.write(self._file, offset, data)

    async def change(self, changes: Changes) -> Entry:
        self._spool.hold(self._file)  # whoever has it open may close it meanwhile
        try:
            await self._change(changes)
            if self._file.opens == 1:  # they did, all of them: nobody else will store it
                await self._spool.flush(self._file)
            return self.entry
        finally:
            await self._spool.release(self._file)

    async def _change(self, changes: Changes) -> None:
        if changes.size is not None and changes.size != self._file.size:
            await self._spool.truncate(self._file, changes.size)
        elif changes.size is not None and changes.mtime_ns is None:
            changes = dataclasses.replace(changes, mtime_ns=time.time_ns())
        if changes.sets_attributes:
            await self._attributes.of_spooled(self._file, partial(changed, changes=changes))

    async def synchronize(self) -> None:
        await self._spool.synchronize(self._file)

    async def flush(self) -> None:
        await self._spool.flush(self._file)

    async def release(self) -> None:
        if not self._is_released:
            self._is_released = True
            await self._spool.release(self._file)

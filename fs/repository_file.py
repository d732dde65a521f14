"""A file of the repository that is open for writing, as the tree's contract has it."""

import stat
import time

from msgspec.structs import replace

from backgate.fs.repository_entries import Entries
from backgate.fs.tree import Changes, Entry
from backgate.gateway.attributes import Attributes
from backgate.gateway.source import Data
from backgate.gateway.spool import Spool
from backgate.gateway.spooled import SpooledFile


class RepositoryFile:
    """One open of a file of the spool; all opens of one file share its bytes."""

    def __init__(self, spool: Spool, entries: Entries, file: SpooledFile, name: bytes) -> None:
        self._spool, self._entries, self._file, self._name = spool, entries, file, name
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
        return await self._file.read_at(offset, length)

    async def write_at(self, offset: int, data: bytes | memoryview) -> None:
        await self._spool.write(self._file, offset, data)

    async def change(self, changes: Changes) -> Entry:
        if changes.size is not None:
            await self._spool.truncate(self._file, changes.size)
        if _sets_attributes(changes):
            await self._spool.set_attributes(self._file, changed(self._file.attributes, changes))
        return self.entry

    async def synchronize(self) -> None:
        await self._spool.synchronize(self._file)

    async def flush(self) -> None:
        await self._spool.flush(self._file)

    async def release(self) -> None:
        if not self._is_released:
            self._is_released = True
            await self._spool.release(self._file)


def changed(attributes: Attributes, changes: Changes) -> Attributes:
    """Return `attributes` with what `changes` says of mode, owner and times."""
    mode = attributes.mode
    if changes.mode is not None:
        mode = stat.S_IFMT(mode) | stat.S_IMODE(changes.mode)
    return replace(
        attributes,
        mode=mode,
        uid=attributes.uid if changes.uid is None else changes.uid,
        gid=attributes.gid if changes.gid is None else changes.gid,
        mtime_ns=attributes.mtime_ns if changes.mtime_ns is None else changes.mtime_ns,
        atime_ns=attributes.atime_ns if changes.atime_ns is None else changes.atime_ns,
        ctime_ns=time.time_ns(),
    )


def _sets_attributes(changes: Changes) -> bool:
    fields = (changes.mode, changes.uid, changes.gid, changes.mtime_ns, changes.atime_ns)
    return any(field is not None for field in fields)

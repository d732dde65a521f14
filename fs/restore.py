"""Copy a tree, or one file of it, to local disk: contents, modes, times, links, xattrs and owners.

One task walks the tree and several copy files; a directory gets its own attributes when all is in
it. What is there already with the same size and time is not copied again, and a file that was cut
off goes on where it ended, so that the same call again finishes what another began.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from backgate.fs import local
from backgate.fs.tree import Entry, Tree
from backgate.fs.visit import CONFINED, check_depth, check_name, settled
from backgate.fs.walk import Place, enter
from backgate.gateway.errors import Damaged, FileError
from backgate.gateway.readahead import Budget, ReadAhead
from backgate.gateway.source import Source
from backgate.gateway.units import KIB, MIB

COPIERS = 8  # files at once; hides the latency of small ones and bounds memory
QUEUED = 32  # files that the walk may be ahead of the copying
PIECE = 4 * MIB  # bytes read and written at a time
INLINE = 256 * KIB  # bytes; a shorter write costs less than a thread
REWRITTEN = 16 * MIB  # bytes before the end of a cut-off file that may not have reached the disk

Complain: TypeAlias = Callable[[bytes, Exception], None]  # with the path that failed
# What may be wrong with one file only: in the backup, or here (a time that no clock can show).
_HARMLESS = (*CONFINED, OSError, OverflowError, ValueError)


@dataclass(slots=True)
class Restored:
    """What a restore has done so far."""

    files: int = 0  # and links, symlinks, devices
    directories: int = 0
    bytes: int = 0  # of files that are right now, whether copied or there before
    skipped: int = 0  # files whose content was there before
    failed: int = 0


@dataclass(slots=True, eq=False)
class _Directory:
    """A local directory on its way; its descriptor is open until all is in it."""

    path: bytes  # below the top: empty, or ends in "/"
    descriptor: int
    place: Place  # where its entries come from
    keeps_attributes: bool = False
    parent: "_Directory | None" = None
    pending: int = 1  # its own listing, and each child that is not done


@dataclass(frozen=True, slots=True)
class _Child:
    """One entry of a directory, to be made."""

    directory: _Directory
    entry: Entry

    @property
    def path(self) -> bytes:
        return self.directory.path + self.entry.name


@dataclass(slots=True)
class _First:
    """The name of a file with hard links that is made first; the others wait for it."""

    path: bytes
    ended: trio.Event = field(default_factory=trio.Event)
    is_made: bool = False


class Restore:
    """One copy into the local directory that `top` is a descriptor of.

    `complain` is told of each file that could not be copied; all others are copied. `advance` is
    told how many bytes have become right. Tasks that read ahead run in `nursery`.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        top: int,
        complain: Complain,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._nursery, self._top = nursery, top
        self._complain, self._advance = complain, advance
        self._links: dict[tuple[Tree, object], _First] = {}
        self._open_directories: set[_Directory] = set()
        self._budget = Budget()
        self.done = Restored()

    async def copy(self, place: Place, entries: Sequence[Entry] | None = None) -> None:
        """Copy `entries` of the directory `place`, by default all, with everything below them.

        The top itself keeps its attributes. Raises `StoreError` when the store cannot be asked;
        what was copied stays.
        """
        top = _Directory(b"", os.dup(self._top), place, keeps_attributes=True)
        self._open_directories.add(top)
        send, receive = trio.open_memory_channel[_Child](QUEUED)
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(COPIERS):
                    nursery.start_soon(self._copy_all, receive.clone())
                receive.close()
                async with send:
                    await self._walk(top, entries, send)
        finally:
            while self._open_directories:
                os.close(self._open_directories.pop().descriptor)

    async def _walk(
        self,
        top: _Directory,
        entries: Sequence[Entry] | None,
        send: trio.MemorySendChannel[_Child],
    ) -> None:
        if entries is None:
            below = await self._list(top, send)
        else:
            below = await self._part(top, entries, send)
        await self._one_less(top)
        waiting = below[::-1]
        while waiting:
            directory = await self._enter(waiting.pop())
            if directory is not None:
                waiting += reversed(await self._list(directory, send))
                await self._one_less(directory)

    async def _enter(self, child: _Child) -> _Directory | None:
        parent = child.directory
        try:
            check_depth(child.path)
            tree, there = parent.place
            place = await enter(tree, await settled(tree, there, child.entry))
            descriptor = local.make_directory(parent.descriptor, child.entry.name)
        except _HARMLESS as error:
            self._failed(child.path, error)
            await self._one_less(parent)
            return None
        directory = _Directory(child.path + b"/", descriptor, place, parent=parent)
        self._open_directories.add(directory)
        return directory

    async def _list(
        self, directory: _Directory, send: trio.MemorySendChannel[_Child]
    ) -> list[_Child]:
        """Do the same for all of `directory`; where its listing ends early, for what it gave."""
        tree, there = directory.place
        below: list[_Child] = []
        cursor: bytes | None = None
        try:
            while True:
                page = await tree.children(there, cursor)
                below += await self._part(directory, page.entries, send)
                cursor = page.cursor
                if cursor is None:
                    return below
        except _HARMLESS as error:
            self._failed(directory.path, error)
            return below

    async def _part(
        self,
        directory: _Directory,
        entries: Sequence[Entry],
        send: trio.MemorySendChannel[_Child],
    ) -> list[_Child]:
        """Send the files among `entries` to the copiers, and return the directories."""
        below = []
        for entry in entries:
            child = _Child(directory, entry)
            try:
                check_name(entry.name)
            except FileError as error:
                self._failed(child.path, error)
                continue
            directory.pending += 1
            if entry.is_directory:
                below.append(child)
            else:
                await send.send(child)
        return below

    async def _copy_all(self, receive: trio.MemoryReceiveChannel[_Child]) -> None:
        async with receive:
            async for child in receive:
                try:
                    await self._copy(child)
                except _HARMLESS as error:
                    self._failed(child.path, error)
                await self._one_less(child.directory)

    async def _one_less(self, directory: _Directory) -> None:
        """Note that something of `directory` is done; give it its attributes when all is."""
        here: _Directory | None = directory
        while here is not None:
            here.pending -= 1
            if here.pending:
                return
            if not here.keeps_attributes:
                await self._finish(here)
            self._open_directories.remove(here)
            os.close(here.descriptor)
            here = here.parent

    async def _finish(self, directory: _Directory) -> None:
        tree, entry = directory.place
        try:
            xattrs = await tree.xattrs(entry) if entry.has_xattrs else {}
            local.set_attributes(directory.descriptor, entry, xattrs)
            self.done.directories += 1
        except _HARMLESS as error:
            self._failed(directory.path, error)

    async def _copy(self, child: _Child) -> None:
        tree, there = child.directory.place
        entry = await settled(tree, there, child.entry)
        parent = child.directory.descriptor
        if entry.is_symlink:
            local.make_symlink(parent, entry)
        elif not entry.is_file:
            local.make_special(parent, entry)
        elif entry.nlink > 1 and entry.identity is not None:
            await self._copy_linked(child, tree, entry)
        else:
            await self._copy_file(parent, tree, entry)
        self.done.files += 1

    async def _copy_linked(self, child: _Child, tree: Tree, entry: Entry) -> None:
        key, parent = (tree, entry.identity), child.directory.descriptor
        first = self._links.get(key)
        if first is not None:
            await first.ended.wait()
            if first.is_made:
                local.make_link(self._top, first.path, parent, entry)
            else:
                await self._copy_file(parent, tree, entry)
            return
        first = self._links[key] = _First(child.path)
        try:
            await self._copy_file(parent, tree, entry)
            first.is_made = True
        finally:
            first.ended.set()

    async def _copy_file(self, parent: int, tree: Tree, entry: Entry) -> None:
        xattrs = await tree.xattrs(entry) if entry.has_xattrs else {}
        if local.has_content(parent, entry):
            with suppress(PermissionError):  # one that even its owner may not open
                local.set_file_attributes(parent, entry, xattrs)
            self.done.skipped += 1
            self._arrived(entry.size)
            return
        async with tree.open(entry) as source:
            if source.size != entry.size:
                reason = f"is {source.size} bytes long where {entry.size} were announced"
                raise Damaged(os.fsdecode(entry.name), None, reason)
            with local.partial_file(parent, entry) as descriptor:
                try:
                    await self._copy_content(source, descriptor, os.fsdecode(entry.name))
                except CONFINED:  # it will never be whole
                    os.unlink(local.partial_name(entry), dir_fd=parent)
                    raise
                local.publish(parent, descriptor, entry, xattrs)

    async def _copy_content(self, source: Source, descriptor: int, name: str) -> None:
        offset = max(0, os.fstat(descriptor).st_size - REWRITTEN)
        self._arrived(offset)
        ahead = ReadAhead(source, self._nursery, self._budget)
        try:
            while offset < source.size:
                data = await ahead.read_at(offset, PIECE)
                if not data:
                    raise Damaged(name, offset, "ends early")
                await _write(descriptor, offset, data)
                offset += len(data)
                self._arrived(len(data))
        finally:
            ahead.close()

    def _arrived(self, size: int) -> None:
        self.done.bytes += size
        self._advance(size)

    def _failed(self, path: bytes, error: Exception) -> None:
        self.done.failed += 1
        self._complain(path.rstrip(b"/"), error)


async def _write(descriptor: int, offset: int, data: bytes | memoryview) -> None:
    if len(data) <= INLINE:
        local.write_sparsely(descriptor, offset, data)
    else:
        await trio.to_thread.run_sync(local.write_sparsely, descriptor, offset, data)

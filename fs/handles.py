"""Open files and directories, as the kernel refers to them by number.

A file that is read is a task that holds its tree's context open until the kernel releases it.
Whoever reads a file that somebody writes through this mount reads what was written, however it was
opened.
"""

import errno
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from backgate.fs.inodes import Directory, Inode, Inodes, Opened
from backgate.fs.lookers import Lookers
from backgate.fs.nurseries import open_nursery
from backgate.fs.replies import Replies
from backgate.fs.tree import Children, Entry, Names, WritableFile, tells_names
from backgate.gateway.errors import FileError
from backgate.gateway.readahead import Budget, ReadAhead
from backgate.gateway.source import Data

FIRST_CHILD = 2  # the position behind `.` and `..`

Push = Callable[[int, int, Data], None]  # inode, offset, whole pages for the kernel to keep


class OpenSource:
    """The bytes of one file, held open by a task."""

    __slots__ = ("_file", "_inode", "_is_open", "ahead", "released", "version")

    def __init__(self, inode: Inode, file: Entry) -> None:
        self._inode, self._file = inode, file
        self._is_open = False
        self.version = _version(inode)
        self.ahead: ReadAhead
        self.released = trio.Event()  # ends the task

    async def hold(
        self,
        budget: Budget,
        push: Push | None,
        replies: Replies,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Open the file and keep it open; an error after it was opened is only logged."""
        work = self._hold(budget, push, task_status)
        await replies.contained("reading ahead", work, lambda: self._is_open)

    async def _hold(
        self, budget: Budget, push: Push | None, task_status: trio.TaskStatus[None]
    ) -> None:
        into = None if push is None else partial(push, self._inode.number)
        async with (
            self._inode.tree.open(self._file) as source,
            trio.open_nursery() as nursery,
        ):
            self.ahead = ReadAhead(source, nursery, budget, into)
            self._is_open = True
            task_status.started()
            try:
                await self.released.wait()
            finally:
                self.ahead.close()
                nursery.cancel_scope.cancel()


class ReadHandle:
    """A file open for reading."""

    __slots__ = ("inode", "opened")

    def __init__(self, inode: Inode) -> None:
        self.inode = inode
        self.opened: OpenSource | None = None  # None: it was being written, and read from there

    def close(self) -> None:
        """Let go of the source, if there is one."""
        if self.opened is not None:
            self.opened.released.set()
            self.opened = None

    async def stop_pushing(self) -> None:
        """Give the kernel no more pages of what is about to change."""
        if self.opened is not None:
            await self.opened.ahead.stop_pushing()


@dataclass(slots=True)
class WriteHandle:
    """A file open for writing, or for both."""

    inode: Inode
    file: WritableFile
    appends: bool


class DirectoryHandle:
    """A directory being read, page by page; positions count its children in the tree's order."""

    __slots__ = (
        "_first",
        "_inodes",
        "_is_last",
        "_lookers",
        "_page",
        "_starts",
        "_task",
        "directory",
    )

    def __init__(self, directory: Directory, inodes: Inodes, lookers: Lookers, task: int) -> None:
        self.directory, self._inodes = directory, inodes
        self._lookers, self._task = lookers, task
        self._first = 0  # position of the first entry of `_page`
        self._page: Sequence[Entry | bytes] = ()
        self._is_last = False  # no page comes behind `_page`
        self._starts: list[tuple[int, bytes | None]] = []  # of each page: position, cursor

    @property
    def wants_attributes(self) -> bool:
        """True when who reads it will look at what it is told of."""
        return self._lookers.is_one(self._task)

    def told_names(self) -> None:
        """Note that names were told without attributes."""
        self._lookers.listed(self.directory.number, self._task)

    def rewind(self) -> None:
        """Forget the pages read so far, so that a listing from the start sees what is there now."""
        self._starts, self._page, self._first, self._is_last = [(0, None)], (), 0, False

    async def after(self, position: int) -> Sequence[Entry | bytes]:
        """Return what is from `position` on, at least one unless the directory ends there.

        An entry, or, for who wants no attributes, the name of a regular file.
        """
        if not self._starts:
            self.rewind()
        stop = self._first + len(self._page)
        if position < self._first or (position >= stop and not self._is_last):
            await self._turn_to(position)
        return self._page[position - self._first :]

    async def _turn_to(self, position: int) -> None:
        """Read the page that holds `position`; it may lie behind pages nobody asked for yet."""
        number = max(n for n, (start, _) in enumerate(self._starts) if start <= position)
        tree, entry = await self._inodes.inside(self.directory)
        while True:
            first, cursor = self._starts[number]
            page: Children | Names
            if tells_names(tree) and not self.wants_attributes:
                page = await tree.names(entry, cursor)
            else:
                page = await tree.children(entry, cursor)
            self._first, self._page = first, page.entries
            self._is_last = page.cursor is None
            stop = first + len(page.entries)
            # Positions behind this page count from it as it is now.
            self._starts[number + 1 :] = [] if self._is_last else [(stop, page.cursor)]
            if position < stop or self._is_last:
                return
            number += 1


class Handles:
    """All handles of one mount, by number."""

    def __init__(self, inodes: Inodes, replies: Replies, push: Push | None) -> None:
        self._inodes, self._replies = inodes, replies
        self._budget, self._push = Budget(), push
        self._nursery: trio.Nursery
        self._files: dict[int, ReadHandle | WriteHandle] = {}
        self._directories: dict[int, DirectoryHandle] = {}
        self._last = 0

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Hold files open in tasks; none can be opened outside of the context."""
        async with open_nursery() as self._nursery:
            try:
                yield
            finally:
                self._nursery.cancel_scope.cancel()

    async def stop_pushing(self) -> None:
        """Return once the kernel is given no more pages, and will be given none."""
        self._push = None
        for handle in list(self._files.values()):
            if isinstance(handle, ReadHandle):
                await handle.stop_pushing()

    def file(self, number: int) -> ReadHandle | WriteHandle:
        """Return the open file `number`."""
        return self._files[number]

    def directory(self, number: int) -> DirectoryHandle:
        """Return the open directory `number`."""
        return self._directories[number]

    @property
    def writers(self) -> int:
        """How many files are open for writing."""
        return sum(isinstance(handle, WriteHandle) for handle in self._files.values())

    @property
    def readers(self) -> int:
        """How many files are open for reading only."""
        return len(self._files) - self.writers

    async def open_for_reading(self, inode: Inode) -> int:
        """Open `inode` and return the handle's number."""
        handle = ReadHandle(inode)
        number = self._add(handle)
        try:
            if inode.file is None:
                await self._open_source(handle)
        except BaseException:
            await self.release(number)
            raise
        return number

    async def expect_changes(self, inode: Inode) -> None:
        """Return once nothing that is read ahead can reach the kernel's pages of `inode`."""
        for handle in list(self._files.values()) if inode.opened else ():
            if handle.inode is inode and isinstance(handle, ReadHandle):
                await handle.stop_pushing()

    def opened_for_writing(self, inode: Inode, file: WritableFile, *, appends: bool) -> int:
        """Return a number for `file`, which was just opened, or created."""
        number = self._add(WriteHandle(inode, file, appends))
        opened = inode.opened
        if opened is not None:
            opened.writing.append(file)
            opened.version += 1
        return number

    async def read(self, number: int, offset: int, length: int) -> Data:
        """Return bytes of an open file as it is now."""
        handle = self._files[number]
        if isinstance(handle, WriteHandle):
            return await handle.file.read_at(offset, length)
        if handle.inode.file is not None:
            return await handle.inode.file.read_at(offset, length)
        opened = handle.opened
        if opened is None or opened.version != _version(handle.inode):
            opened = await self._open_source(handle)
        return await opened.ahead.read_at(offset, length)

    async def write(self, number: int, offset: int, data: bytes) -> None:
        """Put `data` into a file open for writing; at its end when it was opened to append."""
        handle = self._writable(number)
        await handle.file.write_at(handle.file.size if handle.appends else offset, data)
        if handle.inode.opened is not None:
            handle.inode.opened.version += 1

    async def flush(self, number: int) -> None:
        """Do what close(2) promises; nothing for a file that was only read."""
        handle = self._files[number]
        if isinstance(handle, WriteHandle):
            await handle.file.flush()

    async def synchronize(self, number: int) -> None:
        """fsync(2) an open file."""
        handle = self._files[number]
        file = handle.file if isinstance(handle, WriteHandle) else handle.inode.file
        if file is not None:
            await file.synchronize()

    async def release(self, number: int) -> None:
        """Close an open file for good."""
        handle = self._files[number]
        if isinstance(handle, ReadHandle):
            await handle.stop_pushing()  # a page that comes later might find the file changed
            handle.close()
        del self._files[number]
        inode, opened = handle.inode, handle.inode.opened
        if opened is not None:
            file = handle.file if isinstance(handle, WriteHandle) else None
            await self._release(inode, opened, file)

    def open_directory(self, directory: Directory, lookers: Lookers, task: int) -> int:
        """Return a number for `task` to read `directory`."""
        self._last += 1
        self._directories[self._last] = DirectoryHandle(directory, self._inodes, lookers, task)
        return self._last

    def release_directory(self, number: int) -> None:
        """Close an open directory."""
        del self._directories[number]

    def _writable(self, number: int) -> WriteHandle:
        handle = self._files[number]
        if not isinstance(handle, WriteHandle):
            raise FileError(errno.EBADF, handle.inode.name)
        return handle

    def _add(self, handle: ReadHandle | WriteHandle) -> int:
        self._last += 1
        self._files[self._last] = handle
        if handle.inode.opened is None:
            handle.inode.opened = Opened()
        handle.inode.opened.handles += 1
        return self._last

    async def _release(self, inode: Inode, opened: Opened, file: WritableFile | None) -> None:
        opened.handles -= 1
        if file is not None:
            inode.note_cached()
            opened.writing.remove(file)
            opened.closed.append(file)
        # A file without a name cannot be opened again: its bytes stay until the last reader left.
        due: list[WritableFile] = []
        if opened.handles == 0 or not inode.is_nameless:
            due, opened.closed = opened.closed, due
        if opened.handles == 0:
            inode.opened = None
            self._inodes.forget(inode.number, 0)
        for closed in due:
            await closed.release()

    async def _open_source(self, handle: ReadHandle) -> OpenSource:
        """Open the file's bytes as they are now, in place of those opened before."""
        opened = OpenSource(handle.inode, await self._inodes.entry(handle.inode))
        push = self._push if handle.inode.file is None else None
        await self._nursery.start(opened.hold, self._budget, push, self._replies)
        handle.close()
        handle.opened = opened
        return opened


def _version(inode: Inode) -> int:
    return inode.opened.version if inode.opened else 0

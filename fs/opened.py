"""Backups that somebody looks into: opened once, shared, and closed when long unused.

One of which a part could not be opened is opened anew once it can be; whoever uses what was opened
before keeps it.
"""

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import trio

from backgate.fs.format import Backup, BackupFormat
from backgate.fs.tree import Children, Entry, Tree, is_renewable
from backgate.gateway.errors import BackgateError
from backgate.gateway.source import Source

IDLE_MAX = 32  # backups kept open though nobody uses them; each holds an index and a few caches

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class OpenBackups:
    """The trees of all backups that are open; start it with `open_backups`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._shared: OrderedDict[Hashable, _Shared] = OrderedDict()

    def tree(self, format_: BackupFormat, backup: Backup) -> Tree:
        """Return a tree that opens `backup` at its first use; nothing is asked of the store yet."""
        version = backup.version or (backup.time_ns, backup.size)
        identity = (format_.name, backup.key, backup.path, version)
        return _BackupTree(identity, self, format_, backup)

    def is_immutable(self, identity: Hashable) -> bool:
        """Tell of the backup with that identity whether all that is shown of it stays so."""
        shared = self._shared.get(identity)
        return shared is None or shared.is_immutable

    def used(
        self, identity: Hashable, format_: BackupFormat, backup: Backup
    ) -> AbstractAsyncContextManager[Tree]:
        """Provide the tree of a backup, opened now if it is not, or anew if it is outdated."""
        shared = self._use(identity, format_, backup)
        if shared.is_renewable:
            return self._renewed(shared, identity, format_, backup)
        return shared.used()

    @asynccontextmanager
    async def _renewed(
        self, shared: "_Shared", identity: Hashable, format_: BackupFormat, backup: Backup
    ) -> AsyncIterator[Tree]:
        async with shared.used() as tree:
            if not is_renewable(tree) or not await tree.is_outdated():
                yield tree
                return
        if self._shared.get(identity) is shared:  # nobody else was quicker
            del self._shared[identity]
            shared.retire()
        async with self._use(identity, format_, backup).used() as tree:
            yield tree

    def _use(self, identity: Hashable, format_: BackupFormat, backup: Backup) -> "_Shared":
        shared = self._shared.get(identity)
        if shared is None or shared.is_failed:
            shared = self._shared[identity] = _Shared(format_, backup)
            self._nursery.start_soon(shared.run)
        self._shared.move_to_end(identity)
        self._close_idle()
        return shared

    def _close_idle(self) -> None:
        idle = [key for key, shared in self._shared.items() if shared.users == 0]
        for key in idle[: max(0, len(idle) - IDLE_MAX)]:
            self._shared.pop(key).unwanted.set()


@asynccontextmanager
async def open_backups() -> AsyncIterator[OpenBackups]:
    """Run the tasks that hold backups open; all are closed when the context ends."""
    async with trio.open_nursery() as nursery:
        try:
            yield OpenBackups(nursery)
        finally:
            nursery.cancel_scope.cancel()


class _Shared:
    """One opened backup, held by a task of its own."""

    def __init__(self, format_: BackupFormat, backup: Backup) -> None:
        self._format, self._backup = format_, backup
        self._ready = trio.Event()
        self._tree: Tree | None = None
        self._error: BaseException | None = None
        self._is_retired = False  # another is used by whoever comes
        self.unwanted = trio.Event()
        self.users = 0

    @property
    def is_immutable(self) -> bool:
        return self._tree is None or self._tree.is_immutable

    @property
    def is_renewable(self) -> bool:
        return self._tree is not None and is_renewable(self._tree)

    def retire(self) -> None:
        """Close it once nobody uses it."""
        self._is_retired = True
        if not self.users:
            self.unwanted.set()

    @property
    def is_failed(self) -> bool:
        return self._error is not None

    async def run(self) -> None:
        """Hold the backup open until it is unwanted; an error is for those who wait, not for us."""
        try:
            async with self._format.open(self._backup) as tree:
                self._tree = tree
                self._ready.set()
                await self.unwanted.wait()
        except BaseException as error:
            is_told = self._tree is None  # to whoever waits for it
            self._error = error
            if not isinstance(error, Exception):
                raise
            if not is_told:
                log.exception("%s: closed by an error", self._backup.key)
        finally:
            self._tree = None
            self._ready.set()

    @asynccontextmanager
    async def used(self) -> AsyncIterator[Tree]:
        self.users += 1
        try:
            await self._ready.wait()
            if self._error is not None:
                raise self._error
            if self._tree is None:
                raise BackgateError(f"{self._backup.key}: it is being closed")
            yield self._tree
        finally:
            self.users -= 1
            if self._is_retired and not self.users:
                self.unwanted.set()


class _BackupTree:
    """The tree of one backup, opened when first asked, and again when it was closed since."""

    def __init__(
        self, identity: Hashable, opened: OpenBackups, format_: BackupFormat, backup: Backup
    ) -> None:
        self._identity, self._opened = identity, opened
        self._format, self._backup = format_, backup

    def __eq__(self, other: object) -> bool:
        """True for the same backup: the mount keeps the inodes below it."""
        return isinstance(other, _BackupTree) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def is_immutable(self) -> bool:
        return self._opened.is_immutable(self._identity)

    async def root(self) -> Entry:
        async with self._used() as tree:
            return await tree.root()

    async def child(self, directory: Entry, name: bytes) -> Entry:
        async with self._used() as tree:
            return await tree.child(directory, name)

    async def children(self, directory: Entry, cursor: bytes | None = None) -> Children:
        async with self._used() as tree:
            return await tree.children(directory, cursor)

    @asynccontextmanager
    async def open(self, file: Entry) -> AsyncIterator[Source]:
        async with self._used() as tree, tree.open(file) as source:
            yield source

    async def xattrs(self, entry: Entry) -> Mapping[bytes, bytes]:
        async with self._used() as tree:
            return await tree.xattrs(entry)

    def _used(self) -> AbstractAsyncContextManager[Tree]:
        return self._opened.used(self._identity, self._format, self._backup)

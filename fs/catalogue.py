"""The catalogue: every completed backup of a repository as one read-only tree, whatever wrote it.

`<format>/<subject>/<time>/...` is built from what the formats find among the landmarks of the
index. A backup is opened when somebody first looks inside, and closed again when long unused.
"""

import errno
import hashlib
import logging
import stat
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import trio

from backgate.fs.format import Backup, BackupFormat, Count, uncounted
from backgate.fs.opened import OpenBackups
from backgate.fs.tree import Children, Entry, Tree
from backgate.gateway.errors import FileError, StoreError
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Bytes, Source

DIRECTORY = stat.S_IFDIR | 0o555
FILE = stat.S_IFREG | 0o444
LINK = stat.S_IFLNK | 0o777
LATEST = b"latest"
PAGE = 1000  # entries in one page of a directory
HASH_DIGITS = 8  # hex digits that tell two backups of one path apart

log = logging.getLogger(__name__)


class Landmarks(Protocol):
    """Where the catalogue learns which objects may announce backups."""

    @property
    def generation(self) -> int:
        """Grows whenever the set of objects may have changed."""

    async def complete(self) -> None:
        """Return once every object is known; `StoreError` when the store cannot be listed."""

    async def landmarks(
        self, formats: Mapping[str, BackupFormat]
    ) -> Mapping[str, Sequence[ObjectInfo]]:
        """Return each format's landmarks among the objects that are known."""


@dataclass(frozen=True, slots=True)
class Found:
    """A backup and the format that found it."""

    format: BackupFormat
    backup: Backup


@dataclass(slots=True)
class _Directory:
    children: dict[bytes, "_Directory | Found | Bytes | bytes"] = field(default_factory=dict)
    newest_ns: int = 0


class Catalogue:
    """All backups of a repository: a list for commands, and a `Tree` for `backups/`."""

    is_immutable = False  # new backups appear; what is inside one never changes

    def __init__(
        self, landmarks: Landmarks, formats: Mapping[str, BackupFormat], opened: OpenBackups
    ) -> None:
        self._landmarks, self._formats, self._opened = landmarks, formats, opened
        self._scanned = -1  # the generation that `_top` was built from
        self._scans = 0
        self._scanning = trio.Lock()
        self._found: dict[str, Sequence[Found]] = {}  # by format
        self._failures: dict[str, StoreError] = {}  # formats of which less is shown than there is
        self._top = _Directory()

    async def found(self) -> Sequence[Found]:
        """Return all backups, complete or not, as the store has them now."""
        await self._landmarks.complete()
        await self._scan(anew=True)
        self._require_whole(())
        return list(_all_of(self._found))

    async def examined(self, count: Count = uncounted) -> Sequence[Found]:
        """Return the same after a closer look at each: what lacks something is incomplete.

        `count` is told how that goes on.
        """
        await self.found()
        found: list[Found] = []
        for backups in list(self._found.values()):
            if backups:
                format_ = backups[0].format
                looked_at = await format_.examined([one.backup for one in backups], count)
                found += [Found(format_, backup) for backup in looked_at]
        return found

    async def root(self) -> Entry:
        await trio.lowlevel.checkpoint()
        return Entry(name=b"", mode=DIRECTORY, nlink=2, node=(), mtime_ns=self._top.newest_ns)

    async def child(self, directory: Entry, name: bytes) -> Entry:
        """Return one name; one that is known is answered even when the store cannot be listed."""
        await self._scan()
        if name not in self._directory(directory).children:
            await self._landmarks.complete()
            await self._scan(anew=True)
            if name not in self._directory(directory).children:
                self._require_whole(directory.node)
        return self._entry(directory, name)

    async def children(self, directory: Entry, cursor: bytes | None = None) -> Children:
        await self._landmarks.complete()
        await self._scan(anew=True)
        self._require_whole(directory.node)
        names = sorted(self._directory(directory).children)
        if cursor is not None:
            names = [name for name in names if name > cursor]
        page = names[:PAGE]
        entries = [self._entry(directory, name) for name in page]
        return Children(entries, page[-1] if len(names) > PAGE else None)

    @asynccontextmanager
    async def open(self, file: Entry) -> AsyncIterator[Source]:
        node = self._top.children if not file.node else self._node(file.node)
        if not isinstance(node, Bytes):
            raise FileError(errno.EISDIR, file.name)
        yield node

    async def xattrs(self, entry: Entry) -> Mapping[bytes, bytes]:
        await trio.lowlevel.checkpoint()
        return {}

    async def _scan(self, *, anew: bool = False) -> None:
        """Bring everything up to what is known now; nothing is listed for it.

        Of a format that cannot ask the store now, what was known before stays, and `_failures` has
        the reason; such formats are asked again only with `anew`.
        """
        scans = self._scans
        if self._is_current(anew=anew):
            await trio.lowlevel.checkpoint()
            return
        async with self._scanning:
            is_done = self._scans != scans  # by somebody else while we waited
            if self._is_current(anew=anew and not is_done):
                return
            generation = self._landmarks.generation
            landmarks = await self._landmarks.landmarks(self._formats)
            found, failures = dict(self._found), dict[str, StoreError]()
            for name, format_ in self._formats.items():
                try:
                    backups = await format_.backups(landmarks.get(name, []))
                    if name not in found or [one.backup for one in found[name]] != backups:
                        found[name] = [Found(format_, backup) for backup in backups]
                except StoreError as error:
                    failures[name] = error
            if found != self._found:  # else the index changed where no backup is
                self._top = await trio.to_thread.run_sync(_arranged, list(_all_of(found)))
            self._found, self._failures = found, failures
            self._scanned, self._scans = generation, self._scans + 1

    def _is_current(self, *, anew: bool) -> bool:
        is_whole = not (anew and self._failures)
        return is_whole and self._scanned == self._landmarks.generation

    def _require_whole(self, path: tuple[bytes, ...]) -> None:
        """Raise what kept a format from finding what may belong into the directory `path`."""
        for name, error in self._failures.items():
            if not path or path[0] == name.encode():
                raise error.with_traceback(None)  # it would grow with every raise

    def _directory(self, entry: Entry) -> _Directory:
        node = self._node(entry.node)
        if not isinstance(node, _Directory):
            raise FileError(errno.ENOTDIR, entry.name)
        return node

    def _node(self, path: tuple[bytes, ...]) -> "_Directory | Found | Bytes | bytes":
        node: _Directory | Found | Bytes | bytes = self._top
        for name in path:
            if not isinstance(node, _Directory) or name not in node.children:
                raise FileError(errno.ENOENT, b"/".join(path))  # the backup is gone from the store
            node = node.children[name]
        return node

    def _entry(self, directory: Entry, name: bytes) -> Entry:
        path = (*directory.node, name)
        node = self._node(path)
        if isinstance(node, bytes):
            return Entry(name=name, mode=LINK, target=node, size=len(node), node=path)
        if isinstance(node, Bytes):
            return Entry(name=name, mode=FILE, size=node.size, node=path)
        if isinstance(node, _Directory):
            return Entry(name=name, mode=DIRECTORY, nlink=2, node=path, mtime_ns=node.newest_ns)
        tree: Tree = self._opened.tree(node.format, node.backup)
        time_ns = node.backup.time_ns
        return Entry(name=name, mode=DIRECTORY, nlink=2, node=path, mtime_ns=time_ns, junction=tree)


def _all_of(found: Mapping[str, Sequence[Found]]) -> Iterator[Found]:
    return chain.from_iterable(found.values())


def _arranged(found: Iterable[Found]) -> _Directory:
    top = _Directory()
    shown = [one for one in found if one.backup.is_complete or one.backup.files]
    for one in sorted(shown, key=lambda one: (len(one.backup.path), one.backup.key)):
        _place(top, one)
    return top


def _place(top: _Directory, one: Found) -> None:
    backup = one.backup
    path = [one.format.name, *backup.path]
    if backup.is_complete:
        path, last = path[:-1], path[-1].encode()
    directory = top
    for part in path:
        directory.newest_ns = max(directory.newest_ns, backup.time_ns)
        directory = _below(directory, part.encode())
    if not backup.is_complete:
        directory.children |= {name.encode(): Bytes(data) for name, data in backup.files.items()}
        return
    if last in directory.children:
        last += b"~" + hashlib.sha256(backup.key.encode()).hexdigest()[:HASH_DIGITS].encode()
    directory.children[last] = one
    if backup.has_latest and backup.time_ns >= directory.newest_ns:
        directory.children[LATEST] = last
    directory.newest_ns = max(directory.newest_ns, backup.time_ns)


def _below(directory: _Directory, name: bytes) -> _Directory:
    node = directory.children.setdefault(name, _Directory())
    if isinstance(node, _Directory):
        return node
    # An archive `a.tar` beside archives in `a/`: the directory keeps the name.
    below = _Directory(newest_ns=directory.newest_ns)
    directory.children[name] = below
    if isinstance(node, Found):
        digits = hashlib.sha256(node.backup.key.encode()).hexdigest()[:HASH_DIGITS]
        directory.children[name + b"~" + digits.encode()] = node
    return below

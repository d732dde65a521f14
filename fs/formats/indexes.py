"""Indexes of objects, each made once and found again: what an archive holds, how one unpacks.

An index is one SQLite file, named after the version of the object that it describes; it is written
beside its place and renamed when whole. Whoever opens an object while its index is being made waits
for that.
"""

import hashlib
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import trio

from backgate.fs.format import Objects
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Source
from backgate.gateway.units import GIB

AT_ONCE = 2  # indexes being made; each may hold a decompressor of up to 128 MiB
DISK_MAX = 100 * GIB  # bytes that all indexes of a repository may take, copies within them included
NEW = ".new"  # the suffix of an index that is not whole yet
LEFT_BEHIND_AFTER = (
    7 * 86400.0
)  # seconds without a write after which nobody makes that index any more

_WHILE_WRITING = """
PRAGMA page_size = 8192;
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -16384;
PRAGMA temp_store = MEMORY;
"""  # nothing is kept of a file that was not written whole, so there is nothing to roll back
_WHILE_READING = "PRAGMA cache_size = -1024; PRAGMA mmap_size = 0;"

log = logging.getLogger(__name__)
Index = TypeVar("Index")


def identity(info: ObjectInfo) -> str:
    """Return a name for this version of this object that is safe as a file name."""
    text = "\0".join((info.key, info.etag, str(info.size)))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Subject:
    """An object that is to be indexed, by a worker thread."""

    info: ObjectInfo
    random: Source
    sequential: Source  # for one pass from start to end
    folder: Path  # where the index is written


class Indexes(Generic[Index]):
    """The indexes of one kind of one repository's objects, in the folder `directory`.

    `read` opens an index, and raises `sqlite3.DatabaseError` when the file is none; `write` makes
    one in the empty file it is given.
    """

    def __init__(
        self,
        objects: Objects,
        directory: Path,
        read: Callable[[Path], Index],
        write: Callable[[Subject, Path], None],
    ) -> None:
        self._objects, self._directory = objects, directory
        self._read, self._write = read, write
        self._due: dict[str, trio.Event] = {}
        self._builds = trio.CapacityLimiter(AT_ONCE)

    async def open(self, info: ObjectInfo) -> Index:
        """Open the index of this version of an archive; make it first if need be.

        Raises `Damaged` when the archive does not hold together, `StoreError`, and `FileError` when
        the cache's disk is full. After cancellation nothing is left behind.
        """
        name = identity(info)
        path = self._directory / name
        while (index := self._opened(path)) is None:
            if name in self._due:
                await self._due[name].wait()  # that one may have failed: then we try ourselves
                continue
            ended = self._due[name] = trio.Event()
            try:
                with self._objects.sequential(info) as sequential:
                    random = self._objects.source(info)
                    subject = Subject(info, random, sequential, self._directory)
                    await trio.to_thread.run_sync(self._make, subject, path, limiter=self._builds)
            finally:
                del self._due[name]
                ended.set()
        return index

    def _opened(self, path: Path) -> Index | None:
        """Return the index at `path`; one that a failing disk has harmed is as good as none."""
        try:
            os.utime(path)  # the one used longest ago is removed first
            return self._read(path)
        except FileNotFoundError:
            return None
        except sqlite3.DatabaseError as error:
            log.warning("an index is made again: %s: %s", path, error)
            path.unlink(missing_ok=True)
            return None

    def _make(self, subject: Subject, path: Path) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=path.name, suffix=NEW, dir=self._directory)
        os.close(descriptor)
        try:
            self._write(subject, Path(name))
            _synchronize(name)
            os.rename(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
        self._remove_old(path)

    def _remove_old(self, keep: Path) -> None:
        found = []
        for file in self._directory.iterdir():
            with suppress(FileNotFoundError):  # another process cleans up too
                found.append((file.stat().st_mtime, file.stat().st_size, file))
        total = sum(size for _, size, _ in found)
        for used, size, file in sorted(found):
            is_left_behind = file.suffix == NEW and used < time.time() - LEFT_BEHIND_AFTER
            if is_left_behind or (total > DISK_MAX and file != keep and file.suffix != NEW):
                file.unlink(missing_ok=True)
                total -= size


def _synchronize(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # a rename may outlive a power cut that the bytes do not
    finally:
        os.close(descriptor)


def create_index(path: Path, tables: str) -> sqlite3.Connection:
    """Create an empty index for one writer in a worker thread; it ends with COMMIT."""
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    connection.executescript(_WHILE_WRITING + tables + "BEGIN;")
    return connection


def open_index(path: Path) -> sqlite3.Connection:
    """Open an index that was written whole; it goes on working when the file is deleted."""
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    connection = sqlite3.connect(address, uri=True, check_same_thread=False, isolation_level=None)
    try:
        connection.executescript(_WHILE_READING)
        connection.execute("SELECT value FROM facts LIMIT 1").fetchone()
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection

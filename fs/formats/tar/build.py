"""Makes the member index of an archive once, and finds it again.

An index is one file, named after the version of the object that it describes; it is written beside
its place and renamed when whole. Whoever opens an archive while its index is being made waits for
that.
"""

import hashlib
import logging
import os
import sqlite3
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

import trio

from backgate.fs.format import Objects
from backgate.fs.formats.compression.codec import HEAD, codec_of
from backgate.fs.formats.compression.firstpass import FirstPass, require_room
from backgate.fs.formats.compression.packed import LONGEST_READ, PackedFile
from backgate.fs.formats.tar import schema
from backgate.fs.formats.tar.archive import Forward, PlainArchive
from backgate.fs.formats.tar.extraction import Extraction
from backgate.fs.formats.tar.index import Index
from backgate.fs.formats.tar.members import members
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Source
from backgate.gateway.units import GIB

AT_ONCE = 2  # indexes being made; each may hold a decompressor of up to 128 MiB
DISK_MAX = 100 * GIB  # bytes that all indexes of a repository may take, copies within them included
PROGRESS_EVERY = 10.0  # seconds between two lines in the log
MEMBERS_PER_LOOK = 256  # members between two looks at the clock
NEW = ".new"  # the suffix of an index that is not whole yet
LEFT_BEHIND_AFTER = (
    7 * 86400.0
)  # seconds without a write after which nobody makes that index any more

log = logging.getLogger(__name__)


def identity(info: ObjectInfo) -> str:
    """Return a name for this version of this object that is safe as a file name."""
    text = "\0".join((info.key, info.etag, str(info.size)))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Indexes:
    """The indexes of one repository's archives, in the folder `directory` of its cache."""

    def __init__(self, objects: Objects, directory: Path) -> None:
        self._objects = objects
        self._directory = directory / f"index-{schema.VERSION}"
        self._due: dict[str, trio.Event] = {}
        self._builds = trio.CapacityLimiter(AT_ONCE)

    async def open(self, info: ObjectInfo) -> Index:
        """Open the index of this version of an archive; make it first if need be.

        Raises `Damaged` when the archive does not hold together, `StoreError`, and `FileError` when
        the cache's disk is full. After cancellation nothing is left behind.
        """
        name = identity(info)
        path = self._directory / name
        while (index := _opened(path)) is None:
            if name in self._due:
                await self._due[name].wait()  # that one may have failed: then we try ourselves
                continue
            ended = self._due[name] = trio.Event()
            try:
                with self._objects.sequential(info) as sequential:
                    random = self._objects.source(info)
                    build = _Build(info, random, sequential, self._directory)
                    await trio.to_thread.run_sync(self._make, build, path, limiter=self._builds)
            finally:
                del self._due[name]
                ended.set()
        return index

    def _make(self, build: "_Build", path: Path) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=path.name, suffix=NEW, dir=self._directory)
        os.close(descriptor)
        try:
            with closing(schema.create(Path(name))) as database:
                build.run(database)
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


def _opened(path: Path) -> Index | None:
    """Return the index at `path`; one that a failing disk has harmed is as good as none."""
    try:
        os.utime(path)  # the one used longest ago is removed first
        return Index(path)
    except FileNotFoundError:
        return None
    except sqlite3.DatabaseError as error:
        log.warning("the index of an archive is made again: %s: %s", path, error)
        path.unlink(missing_ok=True)
        return None


def _synchronize(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # a rename may outlive a power cut that the bytes do not
    finally:
        os.close(descriptor)


class _Build:
    """One pass over one archive, in a worker thread."""

    def __init__(self, info: ObjectInfo, random: Source, sequential: Source, folder: Path) -> None:
        self._info, self._random, self._sequential = info, random, sequential
        self._folder = folder
        self._noted = time.monotonic()

    def run(self, database: sqlite3.Connection) -> None:
        """Write the whole index; see `Indexes.open` for what it raises."""
        log.info("indexing %r, %d bytes", self._info.key, self._info.size)
        begun = self._noted = time.monotonic()
        archive = self._archive(database)
        extraction = Extraction(database, archive.where, self._info.mtime_ns)
        for member in members(archive):
            extraction.add(member)
            self._note(extraction, member.at)
        archive.finish()
        facts = {"members": extraction.members, "left_out": extraction.left_out}
        database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
        database.execute("COMMIT")
        took = time.monotonic() - begun
        log.info("indexed %r: %d members in %.1f s", self._info.key, extraction.members, took)
        if extraction.left_out:
            log.warning(
                "%r: %d of its members cannot be shown", self._info.key, extraction.left_out
            )

    def _archive(self, database: sqlite3.Connection) -> Forward:
        key = self._info.key
        codec = codec_of(bytes(trio.from_thread.run(self._random.read_at, 0, HEAD)))
        if codec is None:
            return PlainArchive(key, self._random, self._sequential)
        file = PackedFile(key, self._sequential, first_read=LONGEST_READ)
        return FirstPass(file, codec, database)

    def _note(self, extraction: Extraction, at: int) -> None:
        if extraction.members % MEMBERS_PER_LOOK:
            return
        trio.from_thread.check_cancelled()
        require_room(self._folder)
        now = time.monotonic()
        if now - self._noted >= PROGRESS_EVERY:
            self._noted = now
            log.info("indexing %r: %d members, at byte %d", self._info.key, extraction.members, at)

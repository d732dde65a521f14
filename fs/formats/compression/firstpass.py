"""The first pass over a compressed object: checks it whole, and notes how to get back to any place.

Noted are the restarts, a digest of every piece of up to 1 MiB, and, of pieces that lie more than 32
MiB behind a restart (an archive in one zstd frame, or in one xz block), a copy, compressed again.
"""

import errno
import os
import sqlite3
from pathlib import Path

import trio
import xxhash
import zstandard

from backgate.fs.formats.compression.codec import Codec, Restart
from backgate.fs.formats.compression.packed import PackedFile
from backgate.gateway.errors import Damaged, FileError
from backgate.gateway.units import GIB, MIB

PIECE = MIB  # plain bytes that are checked, cached and copied together
COPY_BEHIND = 32 * MIB  # plain bytes behind a restart that are had by decompressing: 0.1 to 0.5 s
COPY_LEVEL = 1  # of zstd: 400 MB/s
COPY_MAX = 64 * GIB  # bytes that the copies of one object may take
COPY_FREE = 2 * GIB  # bytes that copies leave free on the cache's disk
FREE_MIN = 256 * MIB  # bytes; with less, the pass ends with ENOSPC
DISK_LOOK = 64  # pieces between two looks at the disk
# A bomb is an object that becomes more than PLAIN_FREE and more than RATIO_MAX times itself.
# deflate cannot exceed 1032; the others can, and a tar of empty disks may do so honestly, up to the
# free part.
PLAIN_FREE = 64 * GIB
RATIO_MAX = 2000

TABLES = """
CREATE TABLE units (plain INTEGER PRIMARY KEY, packed INTEGER NOT NULL, state BLOB NOT NULL) STRICT;
CREATE TABLE pieces (
    plain INTEGER PRIMARY KEY, length INTEGER NOT NULL, digest INTEGER NOT NULL, copy BLOB
) STRICT;
"""  # beside a table `facts` (name, value)

_SIGN = 1 << 63


class FirstPass:
    """The plain bytes of a compressed object, forward; writes what it learns into `connection`.

    For one worker thread. What was written counts once `finish` has returned.
    """

    def __init__(self, file: PackedFile, codec: Codec, database: sqlite3.Connection) -> None:
        self.where = f"{file.where} (unpacked)"
        self._file, self._codec, self._db = file, codec, database
        self._chunks = codec.unpack(file)
        self._pieces = _Pieces(database, is_copied=codec.is_copied)
        self._start = self._end = 0  # of `_data`
        self._data = b""
        self._memory = 0
        self._plain_max = PLAIN_FREE + RATIO_MAX * file.source.size

    def read_at(self, offset: int, length: int) -> bytes:
        """See `tar.archive.Forward`."""
        stop = offset + length
        while self._end < stop:
            more = self._pull()
            if more is None:
                missing = stop - self._end
                raise Damaged(self.where, self._end, f"truncated: {missing} bytes are missing")
            kept = self._data[max(0, offset - self._start) :]
            self._data, self._end = kept + more, self._end + len(more)
            self._start = self._end - len(self._data)
        begin = offset - self._start
        return self._data[begin : begin + length]

    def finish(self) -> None:
        """Read to the end, so that all was checked, and write the last of what is noted."""
        while (more := self._pull()) is not None:
            self._end += len(more)
        self._pieces.end_unit()
        facts = {"codec": self._codec.name, "plain": self._end, "memory": self._memory}
        facts["copied"] = self._pieces.copied
        self._db.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())

    def _pull(self) -> bytes | None:
        for chunk in self._chunks:
            if isinstance(chunk, bytes):
                self._pieces.add(chunk)
                if self._pieces.end > self._plain_max:
                    reason = f"more than {RATIO_MAX} times its size when unpacked: refused"
                    raise Damaged(self._file.where, self._file.position, reason)
                return chunk
            self._pieces.begin_unit(chunk)
            self._memory = max(self._memory, chunk.memory)
        return None


class _Pieces:
    """Cuts plain bytes into pieces that never cross a restart, and writes what is noted of each."""

    def __init__(self, database: sqlite3.Connection, *, is_copied: bool) -> None:
        self._db, self._is_copied = database, is_copied
        self._folder = _folder_of(database)
        self._piece = bytearray()
        self._compressor = zstandard.ZstdCompressor(level=COPY_LEVEL)
        self._unit = self._written = self._looked = 0
        self.end = 0  # plain bytes so far
        self.copied = 0  # bytes that copies take

    def begin_unit(self, restart: Restart) -> None:
        self.end_unit()
        self._unit = self.end
        row = (self.end, restart.packed, restart.state)
        self._db.execute("INSERT OR REPLACE INTO units VALUES (?, ?, ?)", row)

    def end_unit(self) -> None:
        if self._piece:
            self._write()

    def add(self, chunk: bytes) -> None:
        self.end += len(chunk)
        rest = memoryview(chunk)
        while rest:
            taken = rest[: PIECE - len(self._piece)]
            self._piece += taken
            rest = rest[len(taken) :]
            if len(self._piece) == PIECE:
                self._write()

    def _write(self) -> None:
        self._look_at_disk()
        piece = bytes(self._piece)
        copy = self._compressor.compress(piece) if self._wants_copy() else None
        self.copied += 0 if copy is None else len(copy)
        row = (self._written, len(piece), digest(piece), copy)
        self._db.execute("INSERT INTO pieces VALUES (?, ?, ?, ?)", row)
        self._written += len(piece)
        self._piece.clear()

    def _wants_copy(self) -> bool:
        return self._is_copied and self._written - self._unit >= COPY_BEHIND

    def _look_at_disk(self) -> None:
        self._looked += 1
        if self._looked % DISK_LOOK:
            return
        trio.from_thread.check_cancelled()
        if require_room(self._folder) < COPY_FREE or self.copied > COPY_MAX:
            self._is_copied = False


def require_room(folder: Path) -> int:
    """Return how many bytes are free in `folder`; `FileError` (ENOSPC) when too few are."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < FREE_MIN:
        raise FileError(errno.ENOSPC, folder, "no room for the index of an archive")
    return free


def digest(piece: bytes) -> int:
    """Return xxh3 of the bytes, as the signed number that SQLite holds."""
    return (xxhash.xxh3_64_intdigest(piece) ^ _SIGN) - _SIGN


def _folder_of(database: sqlite3.Connection) -> Path:
    _, _, path = database.execute("PRAGMA database_list").fetchone()
    return Path(path).parent

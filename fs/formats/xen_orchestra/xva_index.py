"""Where the chunks of an XVA's disks lie, looked up in the index that `xva_build` has made."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import xxhash

from backgate.fs.formats.compression.firstpass import TABLES
from backgate.fs.formats.indexes import open_index
from backgate.gateway.source import Data

VERSION = 1  # part of the folder's name: another version of this code makes its own indexes
XXHASH, SHA1 = "xxhash", "sha1"
SCHEMA = (
    """
CREATE TABLE facts (name TEXT PRIMARY KEY, value ANY) WITHOUT ROWID, STRICT;
CREATE TABLE chunks (
    disk TEXT NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL, data INTEGER NOT NULL,
    kind TEXT, sum BLOB, PRIMARY KEY (disk, start)
) WITHOUT ROWID, STRICT;
"""
    + TABLES
)


class Chunk(NamedTuple):
    """Bytes of a disk, and where in the (unpacked) archive they lie."""

    start: int
    length: int
    data: int
    kind: str | None  # of checksum
    sum: bytes | None


class XvaIndex:
    """The index of one XVA, opened; close it when done."""

    def __init__(self, path: Path) -> None:
        self.database = open_index(path)

    def close(self) -> None:
        """Let go of the file."""
        self.database.close()

    def chunks(self, disk: str, start: int, stop: int) -> list[Chunk]:
        """Return the chunks that hold any of `[start, stop)` of a disk, in order."""
        query = "SELECT max(start) FROM chunks WHERE disk = ? AND start <= ?"
        (first,) = self.database.execute(query, (disk, start)).fetchone()
        query = (
            "SELECT start, length, data, kind, sum FROM chunks "
            "WHERE disk = ? AND start >= ? AND start < ? ORDER BY start"
        )
        rows = self.database.execute(query, (disk, start if first is None else first, stop))
        return [chunk for chunk in map(Chunk._make, rows) if chunk.start + chunk.length > start]

    def allocated(self, disk: str) -> int:
        """Return how many bytes of a disk the archive has."""
        query = "SELECT coalesce(sum(length), 0) FROM chunks WHERE disk = ?"
        return int(self.database.execute(query, (disk,)).fetchone()[0])


def digest_of(kind: str, data: Data) -> bytes:
    """Return the checksum of a chunk."""
    if kind == XXHASH:
        digest: bytes = xxhash.xxh64_digest(data)
        return digest
    return hashlib.sha1(data, usedforsecurity=False).digest()

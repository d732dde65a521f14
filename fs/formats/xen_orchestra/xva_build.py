"""One pass over an XVA, that checks all there is to check and notes where its chunks lie.

An XVA is a tar: `ova.xml`, then for each disk chunks `<reference>/<number>` of 1 MiB, each followed
by its checksum. Chunks of zeros are left out but for the first and the last. A host that has had
nothing to send for a while sends an empty chunk, which takes a number and no room on the disk; so a
chunk lies where the one before ended, and behind it as many first chunks as numbers are missing.
"""

import logging
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import trio

from backgate.fs.formats.compression.codec import Codec
from backgate.fs.formats.compression.firstpass import FirstPass, require_room
from backgate.fs.formats.compression.packed import LONGEST_READ, PackedFile
from backgate.fs.formats.indexes import create_index
from backgate.fs.formats.tar.archive import Forward, PlainArchive
from backgate.fs.formats.tar.members import Member, members
from backgate.fs.formats.xen_orchestra.ova import (
    DISKS_MAX,
    OVA,
    OVA_MAX,
    SIZE_MAX,
    BadOva,
    OvaDisk,
    disks_in,
)
from backgate.fs.formats.xen_orchestra.witness import Witness
from backgate.fs.formats.xen_orchestra.xva_index import (
    SCHEMA,
    SHA1,
    XXHASH,
    Chunk,
    digest_of,
)
from backgate.gateway.errors import Damaged
from backgate.gateway.units import MIB

CHUNK_MAX = 16 * MIB  # bytes; 1 MiB as all versions of XAPI write it
DIGITS_MAX = 12  # of a chunk's number
SUM_MAX = 64  # bytes of a checksum, in hexadecimal digits
MEMBERS_PER_LOOK = 256  # members between two looks at the clock and the disk
PROGRESS_EVERY = 10.0  # seconds between two lines in the log
SUMS = {b".xxhash": XXHASH, b".checksum": SHA1}  # by suffix; the older hosts have the second

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pending:
    """A chunk whose checksum comes next."""

    path: bytes
    disk: str
    chunk: Chunk
    content: bytes


@dataclass(slots=True)
class _Place:
    """How far one disk has come."""

    number: int = -1  # of the last chunk
    first: int = 0  # bytes of the first chunk that has any
    end: int = 0  # bytes of the disk

    def put(self, number: int, length: int) -> int | None:
        """Return where the chunk `number` lies; None when it does not come behind the last."""
        if number <= self.number:
            return None
        start = self.end + self.first * (number - self.number - 1)
        self.first = self.first or length
        self.number, self.end = number, start + length
        return start


class XvaBuild:
    """The pass, in a worker thread."""

    def __init__(self, key: str, witness: Witness, codec: Codec | None) -> None:
        self._key, self._witness, self._codec = key, witness, codec
        self._noted = time.monotonic()
        self._members = self._damaged = 0  # chunks whose checksum is wrong
        self._places: dict[str, _Place] = {}
        self._disks: list[OvaDisk] = []
        self._pending: _Pending | None = None

    def write(self, path: Path) -> None:
        """Write the index; `Damaged` when anything does not hold, `StoreError`, `FileError`."""
        log.info("indexing %r, %d bytes", self._key, self._witness.size)
        with closing(create_index(path, SCHEMA)) as database:
            archive = self._archive(database)
            for member in members(archive):
                self._take(archive, member, database)
                self._note(path.parent, member)
            self._end_chunk(None, database)
            self._require_whole()
            archive.finish()
            trio.from_thread.run(self._witness.finish, self._damaged)
            database.execute("COMMIT")

    def _archive(self, database: sqlite3.Connection) -> Forward:
        if self._codec is None:
            return PlainArchive(self._key, self._witness, self._witness)
        file = PackedFile(self._key, self._witness, first_read=LONGEST_READ)
        return FirstPass(file, self._codec, database)

    def _take(self, archive: Forward, member: Member, database: sqlite3.Connection) -> None:
        for suffix, kind in SUMS.items():
            if self._pending and member.path == self._pending.path + suffix:
                if member.size > SUM_MAX:
                    raise Damaged(self._key, member.at, "a checksum that is none")
                text = archive.read_at(member.data, member.size)
                self._end_chunk((kind, text), database)
                return
        self._end_chunk(None, database)
        if member.path == OVA:
            self._disks = read_disks(self._key, archive, member)
        else:
            self._pending = self._chunk(archive, member)

    def _chunk(self, archive: Forward, member: Member) -> _Pending:
        disk, _, digits = member.path.decode("utf-8", "replace").partition("/")
        is_number = digits.isdecimal() and digits.isascii() and len(digits) <= DIGITS_MAX
        if not is_number or member.size > CHUNK_MAX:
            raise Damaged(self._key, member.at, f"no chunk of a disk: {member.path[:80]!a}")
        place = self._places.setdefault(disk, _Place())
        start = place.put(int(digits), member.size)
        if len(self._places) > DISKS_MAX:
            raise Damaged(self._key, member.at, "chunks of more disks than a VM can have")
        if start is None or place.end > SIZE_MAX:
            raise Damaged(self._key, member.at, f"a chunk out of place: {member.path[:80]!a}")
        content = archive.read_at(member.data, member.size)
        chunk = Chunk(start, member.size, member.data, None, None)
        return _Pending(member.path, disk, chunk, content)

    def _end_chunk(self, checksum: tuple[str, bytes] | None, database: sqlite3.Connection) -> None:
        """Note the chunk that waits, once it is known what its checksum is, or that it has none."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        chunk = pending.chunk
        if checksum is not None:
            kind, text = checksum
            digest = digest_of(kind, pending.content)
            if text.strip().lower() != digest.hex().encode():  # each read of it will be an error
                name = pending.path[:80]
                log.warning("%s at byte %d: %s of %r is wrong", self._key, chunk.data, kind, name)
                self._damaged += 1
                digest = b""
            chunk = chunk._replace(kind=kind, sum=digest)
        if chunk.length:
            row = (pending.disk, *chunk)
            database.execute("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?)", row)

    def _require_whole(self) -> None:
        """Raise `Damaged` unless every disk reaches its end: the last chunk is never left out."""
        for disk in self._disks:
            end = self._places.get(disk.reference, _Place()).end
            if end < disk.size:
                reason = f"the disk {disk.reference} has {end} of {disk.size} bytes"
                raise Damaged(self._key, None, reason)

    def _note(self, folder: Path, member: Member) -> None:
        self._members += 1
        if self._members % MEMBERS_PER_LOOK:
            return
        trio.from_thread.check_cancelled()
        require_room(folder)
        now = time.monotonic()
        if now - self._noted >= PROGRESS_EVERY:
            self._noted = now
            log.info("indexing %r: at byte %d of the archive", self._key, member.at)


def read_disks(key: str, archive: Forward, member: Member) -> list[OvaDisk]:
    """Return the disks that the member `ova.xml` tells of; `Damaged`."""
    if member.size > OVA_MAX:
        raise Damaged(key, member.at, f"ova.xml of {member.size} bytes is refused")
    try:
        return disks_in(archive.read_at(member.data, member.size))
    except BadOva as error:
        raise Damaged(key, member.data, f"ova.xml: {error}") from None

"""Whole VMs (XVA): which disks an archive has, and each as a source of its bytes.

The disks are told by the first member. What they hold is found by reading the archive once, which
happens when somebody first reads a disk.
"""

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from backgate.fs.disks.chunks import Chunks
from backgate.fs.format import Surroundings
from backgate.fs.formats.compression.codec import HEAD, Codec, Restart, codec_of
from backgate.fs.formats.compression.decoders import Decoders
from backgate.fs.formats.compression.packed import PackedFile
from backgate.fs.formats.compression.source import Packed, Pieces, Unpacked
from backgate.fs.formats.indexes import Indexes, Subject, identity
from backgate.fs.formats.tar.archive import Forward, PlainArchive
from backgate.fs.formats.tar.members import members
from backgate.fs.formats.xen_orchestra.ova import OVA, OvaDisk
from backgate.fs.formats.xen_orchestra.remote import Remote
from backgate.fs.formats.xen_orchestra.witness import (
    CHECKSUM_MAX,
    Digest,
    Witness,
    checksum_in,
)
from backgate.fs.formats.xen_orchestra.xva_build import XvaBuild, read_disks
from backgate.fs.formats.xen_orchestra.xva_disk import Unfolded, XvaDisk
from backgate.fs.formats.xen_orchestra.xva_index import VERSION, XvaIndex
from backgate.fs.whole import read_whole
from backgate.gateway.errors import Damaged, NotFound
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Source
from backgate.gateway.units import MIB

PIECES = 4 * MIB  # bytes of unpacked pieces that are kept; fewer would be unpacked twice
CHECKSUM = ".checksum"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unpacking:
    """What archives of all repositories of a store share: memory."""

    pieces: Pieces
    decoders: Decoders

    @classmethod
    def of(cls, memory: int) -> "Unpacking":
        """Return what holds at most `memory` bytes, or one decompressor."""
        return cls(Pieces(PIECES, getsizeof=len), Decoders(max(memory - PIECES, PIECES)))


class Archives:
    """The XVAs of one repository."""

    def __init__(self, remote: Remote, lent: Surroundings, unpacking: Unpacking) -> None:
        self.remote = remote
        self._workers, self._unpacking = lent.workers, unpacking
        folder = lent.cache_directory / f"xva-{VERSION}"
        self._indexes = Indexes(lent.objects, folder, XvaIndex, self._write)
        self._failed: dict[str, Damaged] = {}  # by identity: reading it all again ends as before

    @asynccontextmanager
    async def open(self, info: ObjectInfo) -> AsyncIterator["Archive"]:
        """Open an XVA, so far that its disks are known; `Damaged`, `StoreError`."""
        source = self.remote.plain_source(info, is_verified=True)  # for now only names are shown
        codec = codec_of(bytes(await source.read_at(0, HEAD)))
        limiter = self._workers
        disks = await trio.to_thread.run_sync(_disks, info.key, source, codec, limiter=limiter)
        archive = Archive(self, info, codec, disks)
        try:
            yield archive
        finally:
            archive.close()

    async def index(self, info: ObjectInfo) -> XvaIndex:
        """Return the index of an XVA, made now if need be.

        Raises `Damaged` when the archive does not hold together, `StoreError`, `FileError` when the
        cache's disk is full.
        """
        name = identity(info)
        if name in self._failed:
            error = self._failed[name]
            raise Damaged(error.where, error.offset, f"as was found before: {error.reason}")
        try:
            return await self._indexes.open(info)
        except Damaged as error:
            self._failed[name] = error
            raise

    def unpacked(self, info: ObjectInfo, codec: Codec | None, index: XvaIndex) -> Source:
        """Return the bytes of the tar, which were verified when `index` was made."""
        source = self.remote.plain_source(info, is_verified=True)
        if codec is None:
            return source
        packed = Packed(identity(info), info.key, source, codec)
        return Unpacked(packed, index.database, self._unpacking.decoders, self._unpacking.pieces)

    def _write(self, subject: Subject, path: Path) -> None:
        """In a thread: make the index."""
        info, run = subject.info, trio.from_thread.run
        source = self.remote.plain_source(info, is_verified=True)
        codec = codec_of(bytes(run(source.read_at, 0, HEAD)))
        checksum = run(self._checksum, info)
        opener = self.remote.opener
        witness = Witness(info, subject.sequential, opener, checksum, self._workers)
        XvaBuild(info.key, witness, codec).write(path)

    async def _checksum(self, info: ObjectInfo) -> tuple[Digest, str] | None:
        """Return the checksum of the stored bytes that lies beside them; never encrypted itself."""
        try:
            beside = await self.remote.info(info.key + CHECKSUM)
            found = checksum_in(await read_whole(self.remote, beside, CHECKSUM_MAX))
        except NotFound:
            return None
        if found is None:
            log.warning("%s: no checksum that is known: not checked", beside.key)
        return found


class Archive:
    """One opened XVA."""

    def __init__(
        self, archives: Archives, info: ObjectInfo, codec: Codec | None, disks: Sequence[OvaDisk]
    ) -> None:
        self.disks = disks
        self._archives, self._info, self._codec = archives, info, codec
        self._opening = trio.Lock()
        self._opened: Unfolded | None = None

    def source(self, disk: OvaDisk, chunks: Chunks) -> XvaDisk:
        """Return the bytes of one of the disks."""
        return XvaDisk(self._info, disk, self._unfolded, chunks)

    def close(self) -> None:
        """Let go of the index."""
        if self._opened is not None:
            self._opened.index.close()

    async def _unfolded(self) -> Unfolded:
        async with self._opening:
            if self._opened is None:
                index = await self._archives.index(self._info)
                source = self._archives.unpacked(self._info, self._codec, index)
                self._opened = Unfolded(index, source)
            return self._opened


def _disks(key: str, source: Source, codec: Codec | None) -> Sequence[OvaDisk]:
    """In a thread: read the first member."""
    if codec is None:
        archive: Forward = PlainArchive(key, source, source)
    else:
        archive = _Beginning(key, codec.unpack(PackedFile(key, source)))
    first = next(members(archive), None)
    if first is None or first.path != OVA:
        raise Damaged(key, 0, "an XVA that does not begin with ova.xml")
    return read_disks(key, archive, first)


class _Beginning:
    """The first bytes of a compressed archive, as they are unpacked."""

    def __init__(self, where: str, unpacked: Iterator[Restart | bytes]) -> None:
        self.where, self._unpacked = where, unpacked
        self._data = b""

    def read_at(self, offset: int, length: int) -> bytes:
        """See `tar.archive.Forward`."""
        while len(self._data) < offset + length:
            more = next(self._unpacked, None)
            if more is None:
                raise Damaged(self.where, len(self._data), "the archive ends too early")
            if isinstance(more, bytes):
                self._data += more
        return self._data[offset : offset + length]

    def finish(self) -> None:
        """Nothing is checked here."""

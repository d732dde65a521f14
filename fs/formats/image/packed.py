"""Images that are compressed as a whole: unpacked once to note how to get to any place, then read
like the others.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from backgate.fs.format import Surroundings
from backgate.fs.formats.compression.codec import HEAD, codec_named, codec_of
from backgate.fs.formats.compression.decoders import Decoders
from backgate.fs.formats.compression.firstpass import TABLES, FirstPass, require_room
from backgate.fs.formats.compression.packed import LONGEST_READ, PackedFile
from backgate.fs.formats.compression.source import Packed, Pieces, Unpacked
from backgate.fs.formats.image.kind import Kind, kind_of
from backgate.fs.formats.indexes import Indexes, Subject, create_index, identity, open_index
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Source
from backgate.gateway.units import MIB

VERSION = 1  # part of the folder's name: another version of this code makes its own indexes
PIECES = 8 * MIB  # bytes of plain pieces in memory; the decompressors get the rest
FACTS = "CREATE TABLE facts (name TEXT PRIMARY KEY, value ANY) WITHOUT ROWID, STRICT;"


class PackedImages:
    """The compressed images of one repository."""

    def __init__(self, surroundings: Surroundings) -> None:
        folder = surroundings.cache_directory / f"unpacked-{VERSION}"
        self._objects = surroundings.objects
        self._indexes = Indexes(self._objects, folder, open_index, _write)
        self._pieces = Pieces(PIECES, getsizeof=len)
        self._decoders = Decoders(max(0, surroundings.memory_limit - PIECES))

    async def kind_of(self, info: ObjectInfo) -> Kind:
        """Return what an image is; of a compressed one only that it is compressed."""
        source = self._objects.source(info)
        codec = codec_of(bytes(await source.read_at(0, HEAD)))
        return await kind_of(info.key, source) if codec is None else Kind(codec.name)

    @asynccontextmanager
    async def opened(self, info: ObjectInfo) -> AsyncIterator[Source]:
        """Provide the plain bytes of an image.

        The first time, one that is compressed is unpacked from start to end, which takes as long
        as reading all of it. Raises `Damaged`, `StoreError`, and `FileError` when the disk of the
        cache is full.
        """
        source = self._objects.source(info)
        if codec_of(bytes(await source.read_at(0, HEAD))) is None:
            yield source
            return
        with closing(await self._indexes.open(info)) as database:
            (name,) = database.execute("SELECT value FROM facts WHERE name = 'codec'").fetchone()
            packed = Packed(identity(info), info.key, source, codec_named(name))
            yield Unpacked(packed, database, self._decoders, self._pieces)


def _write(subject: Subject, path: Path) -> None:
    require_room(subject.folder)
    file = PackedFile(subject.info.key, subject.sequential, first_read=LONGEST_READ)
    codec = codec_of(_head(file))
    assert codec is not None  # as it was when this was asked for: the version is the same
    with closing(create_index(path, FACTS + TABLES)) as database:
        FirstPass(file, codec, database).finish()
        database.execute("COMMIT")


def _head(file: PackedFile) -> bytes:
    head = file.read(HEAD)
    file.give_back(head)
    return head

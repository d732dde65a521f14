"""A compressed object as a source of its plain bytes, read at any offset.

A read is served in pieces of up to 1 MiB, each checked against the digest of the first pass: from
memory, from its copy on disk, or by decompressing from the restart before it, or on from where a
decompressor stands. Whoever wants what is on its way waits for it.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import trio
import zstandard
from cachetools import LRUCache

from backgate.fs.formats.compression.codec import Codec
from backgate.fs.formats.compression.decoders import Decoder, Decoders
from backgate.fs.formats.compression.firstpass import PIECE, digest
from backgate.fs.formats.compression.packed import PackedFile
from backgate.gateway.errors import Damaged
from backgate.gateway.source import Data, Source

SLACK = 8  # compressed bytes behind the next restart that the last bits before it may need

Pieces = LRUCache[tuple[object, int], bytes]  # plain bytes by object and offset


class _Piece(NamedTuple):
    plain: int
    length: int
    digest: int
    is_copied: int


class _Unit(NamedTuple):
    plain: int
    packed: int
    state: bytes


@dataclass(frozen=True, slots=True)
class Packed:
    """A compressed object."""

    identity: object  # names this version of it
    where: str  # what messages call it
    source: Source
    codec: Codec


class Unpacked:
    """The source; `database` is the finished index of `packed`."""

    def __init__(
        self, packed: Packed, database: sqlite3.Connection, decoders: Decoders, pieces: Pieces
    ) -> None:
        self._packed, self._identity, self._where = packed, packed.identity, packed.where
        self._db, self._decoders, self._pieces = database, decoders, pieces
        facts = dict(database.execute("SELECT name, value FROM facts").fetchall())
        self.size: int = facts["plain"]
        self._memory: int = facts["memory"]
        self._due: dict[tuple[str, int], trio.Event] = {}

    async def read_at(self, offset: int, length: int) -> Data:
        """Return `length` bytes at `offset`, fewer only where the plain bytes end.

        Raises `Damaged` when they are others than in the first pass, and `StoreError`.
        """
        await trio.lowlevel.checkpoint()
        stop = min(offset + length, self.size)
        found: list[Data] = []
        while offset < stop:
            piece = self._piece_at(offset)
            data = memoryview(await self._data_of(piece))
            found.append(data[offset - piece.plain : stop - piece.plain])
            offset = piece.plain + piece.length
        return found[0] if len(found) == 1 else b"".join(found)

    async def _data_of(self, piece: _Piece) -> bytes:
        unit = self._unit_of(piece.plain)
        claim = ("copy", piece.plain) if piece.is_copied else ("unit", unit.plain)
        while True:
            data = self._pieces.get((self._identity, piece.plain))
            if data is not None:
                return data
            if claim not in self._due:
                break
            await self._due[claim].wait()  # it may have failed, or gone elsewhere: look again
        ended = self._due[claim] = trio.Event()
        try:
            return await (self._copied(piece) if piece.is_copied else self._decoded(unit, piece))
        finally:
            del self._due[claim]
            ended.set()

    async def _copied(self, piece: _Piece) -> bytes:
        data = await trio.to_thread.run_sync(self._read_copy, piece, limiter=self._decoders.threads)
        self._pieces[self._identity, piece.plain] = data
        return data

    def _read_copy(self, piece: _Piece) -> bytes:
        query = "SELECT copy FROM pieces WHERE plain = ?"
        (copy,) = self._db.execute(query, (piece.plain,)).fetchone()
        try:
            data = zstandard.decompress(copy, max_output_size=PIECE)
        except zstandard.ZstdError as error:
            raise Damaged(self._where, piece.plain, f"the copy in the cache: {error}") from error
        return self._checked(piece, data)

    async def _decoded(self, unit: _Unit, piece: _Piece) -> bytes:
        key = (self._identity, unit.plain)
        decoder = self._decoders.take(key, piece.plain)
        async with self._decoders.room(self._memory):
            if decoder is None:
                decoder = Decoder(
                    unit.plain, self._packed.codec.unpack(self._file(unit), unit.state)
                )
            data = await trio.to_thread.run_sync(
                self._decode, decoder, piece, limiter=self._decoders.threads
            )
        self._decoders.keep(key, decoder, self._memory)
        return data

    def _decode(self, decoder: Decoder, wanted: _Piece) -> bytes:
        """Go on to the end of the piece; what lies before it is kept too, if it is right."""
        for piece in self._pieces_between(decoder.plain, wanted.plain):
            data = self._take(decoder, piece.length)
            decoder.plain += piece.length
            if digest(data) == piece.digest:
                trio.from_thread.run_sync(self._keep, piece, data)
        return self._checked(wanted, data)

    def _keep(self, piece: _Piece, data: bytes) -> None:
        self._pieces[self._identity, piece.plain] = data

    def _take(self, decoder: Decoder, length: int) -> bytes:
        parts, missing = [decoder.left], length - len(decoder.left)
        while missing > 0:
            part = next(decoder.chunks, None)
            if part is None:
                break
            if isinstance(part, bytes):
                parts.append(part)
                missing -= len(part)
        data = b"".join(parts)
        decoder.left = data[length:]
        return data[:length]

    def _checked(self, piece: _Piece, data: bytes) -> bytes:
        if len(data) != piece.length or digest(data) != piece.digest:
            reason = "unpacked bytes are not those of the first pass"
            raise Damaged(self._where, piece.plain, reason)
        return data

    def _file(self, unit: _Unit) -> PackedFile:
        query = "SELECT packed FROM units WHERE plain > ? ORDER BY plain LIMIT 1"
        row = self._db.execute(query, (unit.plain,)).fetchone()
        stop = None if row is None else row[0] + SLACK
        return PackedFile(self._where, self._packed.source, start=unit.packed, stop=stop)

    def _piece_at(self, offset: int) -> _Piece:
        query = "SELECT plain, length, digest, copy IS NOT NULL FROM pieces "
        query += "WHERE plain <= ? ORDER BY plain DESC LIMIT 1"
        return _Piece(*self._db.execute(query, (offset,)).fetchone())

    def _pieces_between(self, first: int, last: int) -> Iterator[_Piece]:
        query = "SELECT plain, length, digest, copy IS NOT NULL FROM pieces "
        query += "WHERE plain BETWEEN ? AND ? ORDER BY plain"
        return map(_Piece._make, self._db.execute(query, (first, last)))

    def _unit_of(self, plain: int) -> _Unit:
        query = (
            "SELECT plain, packed, state FROM units WHERE plain <= ? ORDER BY plain DESC LIMIT 1"
        )
        return _Unit(*self._db.execute(query, (plain,)).fetchone())

"""Read blobs out of pack files: neighbours together in one range, each checked, in threads.

A pack is a row of envelopes; each can be opened by itself. Every blob's MAC is verified before it
is decrypted, and its sha256, which is its name, after.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio
from cachetools import LRUCache

from backgate.fs.format import Objects
from backgate.fs.formats.restic.allowance import Allowance
from backgate.fs.formats.restic.compression import decompress
from backgate.fs.formats.restic.crypto import OVERHEAD, Opener, Unsound
from backgate.fs.formats.restic.layout import Layout
from backgate.fs.formats.restic.segment import NO_COMPRESSION, Location
from backgate.gateway.errors import Damaged, NotFound, Replaced
from backgate.gateway.source import Data, Source
from backgate.gateway.units import MIB

GAP_MAX = MIB  # bytes that are read and thrown away rather than asked around
RANGE_MAX = 8 * MIB  # bytes read at once
BLOB_MAX = 256 * MIB  # bytes; data blobs have 8 MiB at most, trees of 150 MB have been seen
OPEN_PACKS = 512  # sources kept

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Blob:
    """One copy of a blob: its id, and where it lies."""

    id: bytes
    location: Location

    @property
    def stop(self) -> int:
        return self.location.offset + self.location.length

    @property
    def plain_length(self) -> int:
        """Bytes of plaintext, as the index says."""
        location = self.location
        if location.plain_length == NO_COMPRESSION:
            return location.length - OVERHEAD
        return location.plain_length


@dataclass(frozen=True, slots=True)
class Range:
    """Blobs of one pack that are read together, ascending."""

    pack: bytes
    blobs: Sequence[Blob]

    @property
    def start(self) -> int:
        return self.blobs[0].location.offset

    @property
    def stop(self) -> int:
        return max(blob.stop for blob in self.blobs)

    @property
    def length(self) -> int:
        """Bytes to read."""
        return self.stop - self.start

    @property
    def plain_length(self) -> int:
        """Bytes of plaintext of all its blobs."""
        return sum(blob.plain_length for blob in self.blobs)


def ranges(blobs: Iterable[Blob], length_max: int, plain_max: int) -> list[Range]:
    """Return `blobs` in as few ranges as `GAP_MAX`, `RANGE_MAX` and the limits allow."""
    length_max = min(length_max, RANGE_MAX)
    found: list[Range] = []
    row: list[Blob] = []
    start = plain = 0
    for blob in sorted(blobs, key=lambda blob: (blob.location.pack, blob.location.offset)):
        plain += blob.plain_length
        if row and not (
            blob.location.pack == row[-1].location.pack
            and blob.location.offset - row[-1].stop <= GAP_MAX
            and blob.stop - start <= length_max
            and plain <= plain_max
        ):
            found.append(Range(row[0].location.pack, row))
            row, plain = [], blob.plain_length
        if not row:
            start = blob.location.offset
        row.append(blob)
    if row:
        found.append(Range(row[0].location.pack, row))
    return found


class Packs:
    """The pack files of one repository."""

    def __init__(
        self,
        objects: Objects,
        layout: Layout,
        opener: Opener,
        workers: trio.CapacityLimiter,
        opening: Allowance,
    ) -> None:
        self._objects, self._layout, self._opener = objects, layout, opener
        self._workers = workers
        self._opening = opening  # bytes of plaintext being made
        self._sources: LRUCache[bytes, tuple[str, Source]] = LRUCache(OPEN_PACKS)

    def key(self, pack: bytes) -> str:
        """Return the object of a pack, for messages."""
        known = self._sources.get(pack)
        return known[0] if known else self._layout.pack_keys(pack.hex())[0]

    async def read(self, part: Range, finish: Callable[[Data], T]) -> list[T | Damaged]:
        """Return each blob of `part`, made of its plaintext by `finish` in the same thread.

        In place of a blob that does not hold stands its error. Raises `NotFound` when the pack is
        gone, and `StoreError`.
        """
        data = await self._bytes(part)
        key = self.key(part.pack)
        async with self._opening.held(part.plain_length):
            return await trio.to_thread.run_sync(
                self._opened, part, key, data, finish, limiter=self._workers
            )

    async def _bytes(self, part: Range) -> Data:
        if part.pack in self._sources:
            try:
                return await self._sources[part.pack][1].read_at(part.start, part.length)
            except (NotFound, Replaced):
                self._sources.pop(part.pack, None)  # stored anew or gone: see what is there now
        source = await self._source(part.pack)
        return await source.read_at(part.start, part.length)

    async def _source(self, pack: bytes) -> Source:
        first, *others = self._layout.pack_keys(pack.hex())
        try:
            info = await self._objects.info(first)
        except NotFound:
            if not others:
                raise
            info = await self._objects.info(others[0])
        source = self._objects.source(info)
        self._sources[pack] = (info.key, source)
        return source

    def _opened(
        self, part: Range, key: str, data: Data, finish: Callable[[Data], T]
    ) -> list[T | Damaged]:
        view = memoryview(data)
        opened: list[T | Damaged] = []
        for blob in part.blobs:
            at = blob.location.offset - part.start
            sealed = view[at : at + blob.location.length]
            try:
                opened.append(finish(_plain(blob, sealed, self._opener)))
            except Unsound as error:
                reason = f"blob {blob.id.hex()[:16]}: {error}"
                opened.append(Damaged(key, blob.location.offset, reason))
        return opened


def _plain(blob: Blob, sealed: Data, opener: Opener) -> Data:
    if len(sealed) < blob.location.length:
        raise Unsound("the pack ends before it")
    if blob.location.length > BLOB_MAX or blob.plain_length > BLOB_MAX:
        raise Unsound(f"a blob of {max(blob.location.length, blob.plain_length)} bytes")
    plain: Data = opener.open(sealed)
    if blob.location.plain_length != NO_COMPRESSION:
        plain = decompress(plain, blob.location.plain_length)
    if hashlib.sha256(plain).digest() != blob.id:
        raise Unsound("its content is not what its name says (sha256)")
    return plain

"""A VHD as a directory of objects: footer, header, a bitmap of blocks, and an object for each.

Xen Orchestra's layout for object stores. Block `n` lies in `blocks/<n // 1000>/<n % 1000>`: its
sector bitmap, then its data. The table of blocks is a bitmap here, the highest bit first; offsets
in footer and header mean nothing, and after a merge the header's number of entries may be too low.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import trio

from backgate.fs.disk import Files, Piece
from backgate.fs.disks.bitmaps import is_full, stretches
from backgate.fs.disks.chunk_files import ChunkFiles, filter_in
from backgate.fs.disks.chunks import Chunks
from backgate.fs.disks.filters import filter_named
from backgate.fs.disks.vhd_format import (
    DIFFERENCING,
    FIXED,
    FOOTER,
    HEADER,
    SECTOR,
    BadVhd,
    Footer,
    Header,
    parse_footer,
    parse_header,
)
from backgate.fs.nurseries import open_nursery
from backgate.fs.whole import read_whole
from backgate.gateway.errors import Damaged, NotFound
from backgate.gateway.source import Data
from backgate.gateway.units import KIB, MIB

FILTERS = "chunk-filters.json"
SMALL_MAX = 64 * KIB  # bytes of a footer, header or list of filters, as stored
FOLDER = 1000  # blocks in one directory of them
TABLE_SURE = 4 * MIB  # bytes that any table may have: a disk of 8 TiB
TABLE_MAX = (
    64 * MIB
)  # bytes; a disk of 128 TiB has as many, for Xen Orchestra writes 8 times too many
_HEADS = {"header": SMALL_MAX, "footer": SMALL_MAX}  # objects, and their bytes at most


class Table(NamedTuple):
    """Which blocks there are."""

    bits: bytes  # the highest first, without zeros at the end
    blocks: int  # how many are set


class VhdDirectory:
    """One VHD directory, a `Member`; open it with `open_directory`."""

    def __init__(self, files: ChunkFiles, footer: Footer, header: Header, table: Table) -> None:
        self.where = files.directory
        self.footer, self.header, self.size = footer, header, footer.size
        self._files, self._table = files, table
        self._moved_to: VhdDirectory | None = None

    @property
    def allocated(self) -> int:
        """The bytes of the disk that it has."""
        return self._table.blocks * self.header.block_size

    @property
    def kept(self) -> int:
        """The bytes of memory that its table takes."""
        return len(self._table.bits)

    def merging_into(self, parent: "VhdDirectory") -> "VhdDirectory":
        """Return the same image while its blocks are being moved into `parent`, one by one.

        A block that its table has and that is no longer there, the parent has, though the parent's
        own table does not say so yet.
        """
        made = VhdDirectory(self._files, self.footer, self.header, self._table)
        made._moved_to = parent
        return made

    async def extents(self, offset: int, length: int) -> Sequence[tuple[int, int, bool]]:
        size, stop = self.header.block_size, offset + length
        found: list[tuple[int, int, bool]] = []
        for number in range(offset // size, -(-stop // size)):
            start, end, has = max(offset, number * size), min(stop, (number + 1) * size), False
            has = self._has(number)
            if found and found[-1][2] == has:
                start = found.pop()[0]
            found.append((start, end, has))
        return found

    async def read(self, offset: int, length: int) -> Sequence[Piece]:
        size, stop = self.header.block_size, offset + length
        numbers = range(offset // size, -(-stop // size))
        found: dict[int, Data] = {}

        async def fetch(number: int) -> None:
            found[number] = await self._block(number)

        async with open_nursery() as nursery:
            for number in numbers[1:]:
                nursery.start_soon(fetch, number)
            await fetch(numbers[0])
        pieces: list[Piece] = []
        for number in numbers:
            begin = number * size
            pieces += self._pieces(
                found[number], begin, max(offset, begin), min(stop, begin + size)
            )
        return pieces

    def _pieces(self, block: Data, begin: int, start: int, stop: int) -> list[Piece]:
        bitmap_size = self.header.bitmap_size
        view = memoryview(block)
        data = view[bitmap_size + start - begin : bitmap_size + stop - begin]
        bitmap = view[:bitmap_size]
        sectors = self.header.block_size // SECTOR
        if self.footer.kind != DIFFERENCING or is_full(bitmap, sectors):
            return [Piece(start, stop, data)]
        return [
            Piece(
                begin + at,
                begin + end,
                data[at + begin - start : end + begin - start] if has else None,
            )
            for at, end, has in stretches(bitmap, start - begin, stop - begin)
        ]

    def _has(self, number: int) -> bool:
        bits, byte = self._table.bits, number >> 3
        return byte < len(bits) and bool(bits[byte] & 0x80 >> (number & 7))

    async def _block(self, number: int, *, is_moved: bool = False) -> Data:
        size = self.header.bitmap_size + self.header.block_size
        name = f"blocks/{number // FOLDER}/{number % FOLDER}"
        try:
            return await self._files.chunk(name, size, is_moved=is_moved)
        except NotFound:
            if self._moved_to is None:
                raise
            return await self._moved_to._block(number, is_moved=True)


async def open_directory(files: Files, chunks: Chunks, directory: str) -> VhdDirectory:
    """Open the VHD directory `directory` (a key, without the final slash).

    Raises `NotFound` when it is none, `Damaged`, `StoreError`.
    """
    stored = await _stored(files, directory, {**_HEADS, "bat": TABLE_MAX})
    opener = _opener(files, chunks, directory, stored)
    footer, header = _structures(opener, stored)
    table = await trio.to_thread.run_sync(  # it may be small, and become very large
        _table, opener, stored["bat"], footer, header, limiter=files.workers
    )
    return VhdDirectory(opener, footer, header, table)


async def structures_of(files: Files, chunks: Chunks, directory: str) -> tuple[Footer, Header]:
    """Return what a VHD directory says of itself, without its table; raises as `open_directory`."""
    stored = await _stored(files, directory, _HEADS)
    return _structures(_opener(files, chunks, directory, stored), stored)


async def _stored(files: Files, directory: str, limits: Mapping[str, int]) -> dict[str, Data]:
    """Return what is stored under names of at most so many bytes, and the list of filters."""
    stored: dict[str, Data] = {}

    async def fetch(name: str, limit: int) -> None:
        info = await files.info(f"{directory}/{name}")
        stored[name] = await read_whole(files, info, limit)

    async def fetch_filters() -> None:
        with suppress(NotFound):  # then there is no filter
            await fetch(FILTERS, SMALL_MAX)

    async with open_nursery() as nursery:
        nursery.start_soon(fetch_filters)
        for name, limit in limits.items():
            nursery.start_soon(fetch, name, limit)
    return stored


def _opener(files: Files, chunks: Chunks, directory: str, stored: Mapping[str, Data]) -> ChunkFiles:
    key = f"{directory}/{FILTERS}"
    filter_ = filter_named("")
    if FILTERS in stored:
        filter_ = filter_in(key, files.opened(key, stored[FILTERS]))
    return ChunkFiles(directory, files, chunks, filter_)


def _structures(opener: ChunkFiles, stored: Mapping[str, Data]) -> tuple[Footer, Header]:
    part = "footer"
    try:
        footer = parse_footer(opener.decode(part, stored[part], FOOTER))
        part = "header"
        header = parse_header(opener.decode(part, stored[part], HEADER))
        if footer.kind == FIXED:
            raise BadVhd("a fixed disk has no blocks")
    except BadVhd as error:
        raise Damaged(f"{opener.directory}/{part}", None, str(error)) from None
    return footer, header


def _table(opener: ChunkFiles, stored: Data, footer: Footer, header: Header) -> Table:
    """Return the table of blocks, as far as the disk reaches and without zeros at its end."""
    where = f"{opener.directory}/bat"
    blocks = -(-footer.size // header.block_size)
    needed = -(-blocks // 8)
    limit = max(TABLE_SURE, 2 * max(header.entries, needed))  # a merge may be enlarging it just now
    if limit > TABLE_MAX:
        raise Damaged(where, None, f"a table of {limit} bytes is refused")
    table = bytes(opener.decode("bat", stored, limit))
    if len(table) < needed:
        raise Damaged(where, len(table), f"the table ends early, {blocks} blocks belong into it")
    bits = table[:needed].rstrip(b"\0")
    return Table(bits, int.from_bytes(bits, "big").bit_count())

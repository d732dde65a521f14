"""A VHD as one file: fixed, dynamic or differencing.

The table of blocks is read in pages, as far as somebody reads the disk. Runs of blocks that follow
each other in the file are read together, sector bitmaps and all.
"""

from collections.abc import Sequence
from typing import NamedTuple

import trio
from cachetools import LRUCache

from backgate.fs.disk import Piece
from backgate.fs.disks.bitmaps import is_full, stretches
from backgate.fs.disks.vhd_format import (
    ABSENT,
    DIFFERENCING,
    FIXED,
    FOOTER,
    HEADER,
    SECTOR,
    BadVhd,
    Footer,
    Header,
    is_footer,
    parse_footer,
    parse_header,
)
from backgate.fs.nurseries import open_nursery
from backgate.gateway.errors import Damaged
from backgate.gateway.source import Data, Source
from backgate.gateway.units import KIB, MIB

ENTRY = 4  # bytes of the table
PAGE = 4096  # entries read together: 8 GiB of a disk
PAGES = 16  # kept of one file; a chain may have a thousand
BITMAPS = 128 * KIB  # bytes of bitmaps kept of one file
GAP = 128 * KIB  # bytes between two stretches that are cheaper to read than to ask twice
LONGEST = 16 * MIB  # bytes read together
PATH_MAX = 4 * KIB  # bytes of a parent's path
_PATHS = (b"W2ru", b"W2ku")  # a relative path, then an absolute one, in UTF-16 little endian


class _Stretch(NamedTuple):
    """A part of one block, and where it lies in the file."""

    block: int
    block_at: int  # in the file: first the sector bitmap, then the data
    start: int  # of the disk
    stop: int
    at: int  # in the file, of `start`

    @property
    def end(self) -> int:
        """Where it ends in the file."""
        return self.at + self.stop - self.start


class VhdFile:
    """One dynamic or differencing VHD, a `Member`; open it with `open_file`."""

    def __init__(self, where: str, source: Source, footer: Footer, header: Header) -> None:
        self.where, self.footer, self.header, self.size = where, footer, header, footer.size
        self.stored = source.size
        self._source = source
        self._pages: LRUCache[int, Data] = LRUCache(PAGES)
        self._bitmaps: LRUCache[int, Data] = LRUCache(BITMAPS, getsizeof=len)
        self._sectors = header.block_size // SECTOR

    @property
    def allocated(self) -> int:
        """The bytes that its blocks may take at most: the file without its table."""
        table = self.header.entries * ENTRY
        return min(self.size, max(0, self._source.size - 2 * FOOTER - HEADER - table))

    async def parent_paths(self) -> list[str]:
        """Return where its parent may lie, seen from its own directory, likeliest first."""
        paths: list[str] = []
        for platform in _PATHS:
            for locator in self.header.locators:
                if locator.platform == platform and locator.length <= PATH_MAX:
                    raw = bytes(await self._read(locator.at, locator.length))
                    paths.append(raw.decode("utf-16-le", "replace").replace("\\", "/"))
        paths += [path.rpartition("/")[2] for path in (*paths, self.header.parent_name)]
        return [path for path in paths if path]

    async def extents(self, offset: int, length: int) -> Sequence[tuple[int, int, bool]]:
        size, stop = self.header.block_size, offset + length
        found: list[tuple[int, int, bool]] = []
        for number in range(offset // size, -(-stop // size)):
            start, end = max(offset, number * size), min(stop, (number + 1) * size)
            has = await self._sector(number) != ABSENT
            if found and found[-1][2] == has:
                start = found.pop()[0]
            found.append((start, end, has))
        return found

    async def read(self, offset: int, length: int) -> Sequence[Piece]:
        found = await self._stretches(offset, offset + length)
        reads = _together(found, self.header.bitmap_size)
        data: dict[int, Data] = {}  # by the block's number

        async def fetch(group: Sequence[_Stretch]) -> None:
            first = group[0]
            begin = first.block_at if first.at - first.block_at <= GAP else first.at
            whole = memoryview(await self._read(begin, group[-1].end - begin))
            for one in group:
                data[one.block] = whole[one.at - begin : one.end - begin]
                if one.block_at >= begin:
                    self._keep_bitmap(one.block, whole[one.block_at - begin :])

        async with open_nursery() as nursery:
            for group in reads[1:]:
                nursery.start_soon(fetch, group)
            await fetch(reads[0])
        pieces: list[Piece] = []
        for one in found:
            pieces += await self._pieces(one, data[one.block])
        return pieces

    async def _stretches(self, offset: int, stop: int) -> list[_Stretch]:
        size = self.header.block_size
        found = []
        for number in range(offset // size, -(-stop // size)):
            begin = number * size
            start, end = max(offset, begin), min(stop, begin + size)
            block_at = await self._block_at(number)
            at = block_at + self.header.bitmap_size + start - begin
            found.append(_Stretch(number, block_at, start, end, at))
        return found

    async def _pieces(self, one: _Stretch, data: Data) -> list[Piece]:
        if self.footer.kind != DIFFERENCING:
            return [Piece(one.start, one.stop, data)]
        bitmap = await self._bitmap(one.block)
        if is_full(bitmap, self._sectors):
            return [Piece(one.start, one.stop, data)]
        begin = one.block * self.header.block_size
        return [
            Piece(
                begin + at,
                begin + end,
                data[begin + at - one.start : begin + end - one.start] if has else None,
            )
            for at, end, has in stretches(bitmap, one.start - begin, one.stop - begin)
        ]

    async def _bitmap(self, number: int) -> Data:
        bitmap = self._bitmaps.get(number)
        if bitmap is None:
            bitmap = await self._read(await self._block_at(number), self.header.bitmap_size)
            self._keep_bitmap(number, bitmap)
        return bitmap

    def _keep_bitmap(self, number: int, data: Data) -> None:
        if self.footer.kind == DIFFERENCING:
            self._bitmaps[number] = bytes(data[: self.header.bitmap_size])

    async def _block_at(self, number: int) -> int:
        """Return where block `number` lies in the file: first its bitmap, then its data."""
        sector = await self._sector(number)
        at = sector * SECTOR
        if sector == ABSENT or at < FOOTER + HEADER or at >= self._source.size:
            entry_at = self.header.table_at + number * ENTRY
            raise Damaged(self.where, entry_at, f"block {number} is said to lie at byte {at}")
        return at

    async def _sector(self, number: int) -> int:
        page = self._pages.get(number // PAGE)
        if page is None:
            first = number // PAGE * PAGE
            entries = min(PAGE, self.header.entries - first)
            page = await self._read(self.header.table_at + first * ENTRY, entries * ENTRY)
            page = self._pages[number // PAGE] = bytes(page)
        at = number % PAGE * ENTRY
        return int.from_bytes(page[at : at + ENTRY], "big")

    async def _read(self, offset: int, length: int) -> Data:
        data = await self._source.read_at(offset, length)
        if len(data) != length:
            reason = f"truncated: {length - len(data)} bytes are missing"
            raise Damaged(self.where, offset + len(data), reason)
        return data


class FixedVhd:
    """A fixed VHD: the disk, and a footer behind it."""

    def __init__(self, where: str, source: Source, footer: Footer) -> None:
        self.where, self.footer, self.size = where, footer, footer.size
        self._source = source

    @property
    def allocated(self) -> int:
        """All of the disk is stored."""
        return self.size

    async def extents(self, offset: int, length: int) -> Sequence[tuple[int, int, bool]]:
        await trio.lowlevel.checkpoint()
        return [(offset, offset + length, True)]

    async def read(self, offset: int, length: int) -> Sequence[Piece]:
        return [Piece(offset, offset + length, await self._source.read_at(offset, length))]


async def open_file(where: str, source: Source, *, may_be_fixed: bool) -> VhdFile | FixedVhd:
    """Open the VHD file whose bytes are `source`.

    The footer stands at both ends of a dynamic one, because either may be lost; with `may_be_fixed`
    the end is looked at first, since the beginning could be what somebody has written to the disk.
    Raises `Damaged`, `StoreError`.
    """
    head = await source.read_at(0, FOOTER + HEADER)
    try:
        footer = await _footer(head, source, may_be_fixed=may_be_fixed)
        if footer.kind == FIXED:
            if footer.size > source.size - FOOTER:
                raise BadVhd(f"truncated: a disk of {footer.size} bytes does not fit in")
            return FixedVhd(where, source, footer)
        if footer.header_at != FOOTER:
            head = b"\0" * FOOTER + bytes(await source.read_at(footer.header_at, HEADER))
        header = parse_header(head[FOOTER:])
        _require_table(footer, header, source.size)
    except BadVhd as error:
        raise Damaged(where, None, str(error)) from None
    return VhdFile(where, source, footer, header)


async def _footer(head: Data, source: Source, *, may_be_fixed: bool) -> Footer:
    if not may_be_fixed:
        try:
            return parse_footer(head)
        except BadVhd:
            pass
    tail = await source.read_at(max(0, source.size - FOOTER), FOOTER)
    if is_footer(tail[1:]):  # Virtual PC before 2004 wrote a byte less
        tail = bytes(tail[1:]) + b"\0"
    try:
        return parse_footer(tail)
    except BadVhd:
        return parse_footer(head)


def _require_table(footer: Footer, header: Header, stored: int) -> None:
    blocks = -(-footer.size // header.block_size)
    if header.entries < blocks:
        raise BadVhd(f"a table of {header.entries} entries for {blocks} blocks")
    if header.table_at < FOOTER or header.table_at + blocks * ENTRY > stored:
        raise BadVhd(f"the table is said to lie at byte {header.table_at}, outside of the file")


def _together(found: Sequence[_Stretch], bitmap_size: int) -> list[list[_Stretch]]:
    """Return the stretches in groups that one read gets: close to each other, and in order."""
    groups: list[list[_Stretch]] = []
    for one in found:
        if groups:
            first, last = groups[-1][0], groups[-1][-1]
            gap = one.at - last.end
            if 0 <= gap <= max(GAP, bitmap_size) and one.end - first.block_at <= LONGEST:
                groups[-1].append(one)
                continue
        groups.append([one])
    return groups

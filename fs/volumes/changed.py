"""The sectors that a log changes: gigabytes of them, in a part of that memory.

Those that were used last are kept as they are, the others compressed, a page of neighbours at a
time: metadata is mostly zeros, and what stands beside it too.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from zstandard import ZstdCompressor, ZstdDecompressor

from backgate.gateway.errors import Damaged

PAGE = 64  # sectors
OPEN_MAX = 1 << 17  # sectors that are kept as they are: 64 MiB
PACKED_MAX = 256 << 20  # bytes of the others, compressed
_AROUND = 256  # bytes that a compressed page takes beside its own
_LEVEL = 1  # of compression: inodes become a tenth, at a gigabyte a second


class ChangedSectors(Mapping[int, bytes]):
    """Sectors of `size` bytes by their numbers."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._open: OrderedDict[int, dict[int, bytes]] = OrderedDict()  # last used, last in it
        self._packed: dict[int, tuple[int, bytes]] = {}  # a bit for each sector that is in it
        self._count = self._open_count = 0  # sectors
        self._packed_size = 0  # bytes
        self._pack_page = ZstdCompressor(level=_LEVEL).compress
        self._unpack_page = ZstdDecompressor().decompress

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        """Give the numbers, ascending."""
        for number in sorted([*self._open, *self._packed]):
            if number in self._open:
                yield from sorted(self._open[number])
            else:
                yield from _numbers(number, self._packed[number][0])

    def __contains__(self, sector: object) -> bool:
        if not isinstance(sector, int):
            return False
        number, bit = divmod(sector, PAGE)
        page = self._open.get(number)
        if page is not None:
            return sector in page
        packed = self._packed.get(number)
        return packed is not None and bool(packed[0] >> bit & 1)

    def __getitem__(self, sector: int) -> bytes:
        page = self._page(sector // PAGE)
        if page is None:
            raise KeyError(sector)
        return page[sector]

    def found(self, first: int, count: int) -> list[bytes | None]:
        """Return `count` sectors from `first` on; None where one has not been changed."""
        if count == 1:
            page = self._page(first // PAGE)
            return [page.get(first) if page else None]
        last = (first + count - 1) // PAGE
        if last == first // PAGE:
            page = self._page(last)
            return [page.get(at) for at in range(first, first + count)] if page else [None] * count
        middle = last * PAGE
        return self.found(first, middle - first) + self.found(middle, first + count - middle)

    def put(self, first: int, data: bytes) -> None:
        """Change the sectors from `first` on; `Damaged` when they are too many."""
        for at in range(0, len(data), self._size):
            sector = first + at // self._size
            page = self._page(sector // PAGE)
            if page is None:
                page = self._open[sector // PAGE] = {}
            before = len(page)
            page[sector] = data[at : at + self._size]
            self._count += len(page) - before
            self._open_count += len(page) - before
        self._pack()
        if self._packed_size > PACKED_MAX:
            size = (self._count * self._size) >> 20
            raise Damaged("log", None, f"it changes too much to be kept: {size} MiB of metadata")

    def _page(self, number: int) -> dict[int, bytes] | None:
        """Return a page as it is while it is used; None where nothing of it was changed."""
        page = self._open.get(number)
        if page is not None:
            self._open.move_to_end(number)
        elif number in self._packed:
            present, packed = self._packed.pop(number)
            self._packed_size -= len(packed) + _AROUND
            data, size = self._unpack_page(packed), self._size
            page = self._open[number] = {
                sector: data[at * size : (at + 1) * size]
                for at, sector in enumerate(_numbers(number, present))
            }
            self._open_count += len(page)
            self._pack()
        return page

    def _pack(self) -> None:
        """Compress what was not used for longest, down to what may be kept as it is."""
        while self._open_count > OPEN_MAX and len(self._open) > 1:
            number, page = self._open.popitem(last=False)
            sectors = sorted(page)
            packed = self._pack_page(b"".join(map(page.__getitem__, sectors)))
            present = sum(1 << sector % PAGE for sector in sectors)
            self._packed[number] = present, packed
            self._open_count -= len(page)
            self._packed_size += len(packed) + _AROUND


def _numbers(page: int, present: int) -> Iterator[int]:
    return (page * PAGE + bit for bit in range(PAGE) if present >> bit & 1)

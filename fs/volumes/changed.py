"""The sectors that a log changes: gigabytes of them, in a part of that memory.

They are kept in pages of neighbours. Pages that were used last are kept as they are, the others
compressed: metadata is mostly zeros, and what stands beside it too.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from zstandard import ZstdCompressor, ZstdDecompressor

from backgate.gateway.errors import Damaged

PAGE = 16  # sectors
OPEN_MAX = 8192  # pages that are kept as they are: 64 MiB
PACKED_MAX = 256 << 20  # bytes of the others, compressed
_AROUND = 256  # bytes that a compressed page takes beside its own
_LEVEL = 1  # of compression: inodes become a tenth, at a gigabyte a second


@dataclass(slots=True)
class _Page:
    """Some of the sectors of a page, each in its place."""

    data: bytearray
    present: int = 0  # a bit for each that is there


class ChangedSectors(Mapping[int, bytes]):
    """Sectors of `size` bytes by their numbers."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._open: OrderedDict[int, _Page] = OrderedDict()  # last used, last in it
        self._packed: dict[int, tuple[int, bytes]] = {}  # a bit for each sector that is in it
        self._packed_size = 0  # bytes
        self._compress = ZstdCompressor(level=_LEVEL).compress
        self._decompress = ZstdDecompressor().decompress

    def __len__(self) -> int:
        pages = [page.present for page in self._open.values()]
        return sum(map(int.bit_count, pages + [present for present, _ in self._packed.values()]))

    def __iter__(self) -> Iterator[int]:
        """Give the numbers, ascending."""
        for number in sorted([*self._open, *self._packed]):
            for bit in _bits(self._present(number)):
                yield number * PAGE + bit

    def __contains__(self, sector: object) -> bool:
        if not isinstance(sector, int):
            return False
        number, bit = divmod(sector, PAGE)
        return bool(self._present(number) >> bit & 1)

    def __getitem__(self, sector: int) -> bytes:
        data, present = self.found(sector, 1)
        if not present:
            raise KeyError(sector)
        return data

    def found(self, first: int, count: int) -> tuple[bytes, int]:
        """Return `count` sectors from `first` on, and a bit for each that was changed."""
        number, bit = divmod(first, PAGE)
        here = min(count, PAGE - bit)
        page = self._page(number)
        if page is None:
            data, present = bytes(here * self._size), 0
        else:
            data = bytes(page.data[bit * self._size : (bit + here) * self._size])
            present = page.present >> bit & ((1 << here) - 1)
        if here == count:
            return data, present
        more, others = self.found(first + here, count - here)
        return data + more, present | others << here

    def put(self, first: int, data: bytes) -> None:
        """Change the sectors from `first` on; `Damaged` when they are too many."""
        number, bit = divmod(first, PAGE)
        here = min(len(data) // self._size, PAGE - bit)
        page = self._page(number)
        if page is None:
            page = self._open[number] = _Page(bytearray(PAGE * self._size))
            self._pack()
        start, length = bit * self._size, here * self._size
        page.data[start : start + length] = data[:length]
        page.present |= ((1 << here) - 1) << bit
        if self._packed_size > PACKED_MAX:
            size = (len(self) * self._size) >> 20
            raise Damaged("log", None, f"it changes too much to be kept: {size} MiB of metadata")
        if len(data) > length:
            self.put(first + here, data[length:])

    def _present(self, number: int) -> int:
        page = self._open.get(number)
        return page.present if page is not None else self._packed.get(number, (0, b""))[0]

    def _page(self, number: int) -> _Page | None:
        """Return a page as it is while it is used; None where nothing of it was changed."""
        page = self._open.get(number)
        if page is not None:
            self._open.move_to_end(number)
        elif number in self._packed:
            present, packed = self._packed.pop(number)
            self._packed_size -= len(packed) + _AROUND
            page = self._open[number] = _Page(bytearray(PAGE * self._size), present)
            data, size = self._decompress(packed), self._size
            for at, bit in enumerate(_bits(present)):
                page.data[bit * size : (bit + 1) * size] = data[at * size : (at + 1) * size]
            self._pack()
        return page

    def _pack(self) -> None:
        """Compress what was not used for longest, down to what may be kept as it is."""
        while len(self._open) > OPEN_MAX:
            number, page = self._open.popitem(last=False)
            size = self._size
            there = (page.data[bit * size : (bit + 1) * size] for bit in _bits(page.present))
            packed = self._compress(b"".join(there))
            packed = bytes(memoryview(packed))  # it keeps the room that it might have needed
            self._packed[number] = page.present, packed
            self._packed_size += len(packed) + _AROUND


def _bits(present: int) -> Iterator[int]:
    return (bit for bit in range(PAGE) if present >> bit & 1)

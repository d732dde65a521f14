"""The checksums of btrfs, and the data of files, each sector compared before anybody sees it.

Those of data lie in a tree of their own, by address. What has none (files marked so, space that
was only reserved) is taken as it lies.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import google_crc32c
import xxhash
from fs_explorer.errors import ChecksumError, UnsupportedFormatError
from fs_explorer.filesystems.btrfs import btree
from fs_explorer.filesystems.btrfs import super as superblock
from fs_explorer.filesystems.btrfs.chunks import LogicalRA

CHECKSUMS = 7  # the tree's number
OBJECT, KIND = 2**64 - 10, 128  # of its items' keys; the third part is the first address
ALGORITHMS: dict[int, tuple[int, Callable[[bytes], bytes]]] = {  # by type: bytes, and how
    0: (4, lambda data: google_crc32c.value(data).to_bytes(4, "little")),
    1: (8, lambda data: xxhash.xxh64_intdigest(data).to_bytes(8, "little")),
    2: (32, lambda data: hashlib.sha256(data).digest()),
    3: (32, lambda data: hashlib.blake2b(data, digest_size=32).digest()),
}
CHECKSUM_FIELD = 32  # bytes at the beginning of a superblock, or a block of a tree


def provide_checksums() -> None:
    """Let the library check its blocks by all algorithms: it has no xxHash, and a slow CRC-32C."""
    vars(superblock)["checksum_ok"] = vars(btree)["checksum_ok"] = _is_right


def _is_right(block: bytes, algorithm: int) -> bool | None:
    """Tell whether a block has its checksum; None where nobody knows."""
    if algorithm not in ALGORITHMS:
        return None
    width, digest = ALGORITHMS[algorithm]
    return digest(block[CHECKSUM_FIELD:]) == block[:width]


class CheckedData(LogicalRA):
    """The address space of `tree`, for the bytes of files."""

    def __init__(self, tree: Any) -> None:
        super().__init__(tree.lra.dev, tree.lra.cmap)
        self._tree, self._sector = tree, tree.sb.sectorsize
        if tree.sb.csum_type not in ALGORITHMS:
            raise UnsupportedFormatError("btrfs", f"checksums of type {tree.sb.csum_type}")
        self._width, self._digest = ALGORITHMS[tree.sb.csum_type]
        self._start, self._sums = 0, b""  # the item that was looked at last

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes that are what was written; `ChecksumError` where they are not."""
        start = offset - offset % self._sector
        stop = -(-(offset + length) // self._sector) * self._sector
        data: bytes = super().read_at(start, stop - start)
        for address, expected in self._expected(start, stop):
            at = address - start
            if self._digest(data[at : at + self._sector]) != expected:
                raise ChecksumError(f"btrfs: the data at address {address} has a wrong checksum")
        return data[offset - start : offset - start + length]

    def _expected(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Give the checksums of the sectors in `[start, stop)` that have one."""
        for first, sums in self._items(start, stop):
            begin = max(start, first)
            end = min(stop, first + len(sums) // self._width * self._sector)
            for address in range(begin, end, self._sector):
                at = (address - first) // self._sector * self._width
                yield address, sums[at : at + self._width]

    def _items(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        if self._start <= start and stop <= self._start + self._covered(self._sums):
            yield self._start, self._sums
            return
        longest = self._covered(bytes(self._tree.sb.nodesize))  # of one item, at most
        root, _ = self._tree.subvol_root(CHECKSUMS)
        begin = max(0, start - longest)
        for (_, _, first), sums in self._tree.trees.iter_range(root, OBJECT, KIND, begin):
            if first >= stop:
                return
            if first + self._covered(sums) > start:
                self._start, self._sums = first, sums
                yield first, sums

    def _covered(self, sums: bytes) -> int:
        covered: int = len(sums) // self._width * self._sector
        return covered

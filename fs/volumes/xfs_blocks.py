"""Blocks of what XFS keeps in forks besides data: they say whose they are, and where they lie."""

from collections.abc import Container, Iterator
from typing import NamedTuple

from backgate.fs.volume import Device
from backgate.fs.volumes.checksums import CRC32C_BYTES, crc32c_around
from backgate.fs.volumes.reading import read_exactly
from backgate.fs.volumes.xfs_extents import SECTOR, ExtentMaps
from backgate.fs.volumes.xfs_geometry import Geometry
from backgate.fs.volumes.xfs_inode import Fork, Inode
from backgate.gateway.errors import Damaged

_NUMBER = 8  # bytes of an owner and of an address


class Seal(NamedTuple):
    """Where a kind of block carries what it is checked by, in version 5."""

    crc: int
    address: int  # in sectors of 512 bytes
    owner: int


class ForkBlocks:
    """Reads blocks of forks, of one or more blocks of the file system each.

    The checksums of those that begin, or have a piece that begins, at bytes `unsealed` of the
    device are older than they are.
    """

    def __init__(
        self, device: Device, layout: Geometry, maps: ExtentMaps, unsealed: Container[int]
    ) -> None:
        self._device, self._layout = device, layout
        self._maps, self._unsealed = maps, unsealed

    def block(self, inode: Inode, fork: Fork, first: int, count: int, seal: Seal) -> bytes:
        """Return the `count` blocks of a fork from `first` on, which are one; checked by `seal`."""
        pieces = list(self._pieces(inode, fork, first, count))
        data = b"".join(piece for _, piece in pieces)
        if self._layout.is_v5:
            is_sealed = not any(at in self._unsealed for at, _ in pieces)
            self._check(inode, data, pieces[0][0], seal, is_sealed)
        return data

    def raw(self, inode: Inode, fork: Fork, first: int, count: int) -> bytes:
        """Return `count` blocks of a fork as they are, with nothing to check them by."""
        return b"".join(piece for _, piece in self._pieces(inode, fork, first, count))

    def _pieces(
        self, inode: Inode, fork: Fork, first: int, count: int
    ) -> Iterator[tuple[int, bytes]]:
        size, stop = self._layout.block_size, first + count
        for record in self._maps.mapped(inode, fork, first, stop):
            if record.first > first or record.is_unwritten:
                break
            at = self._layout.block_at(record.block) + (first - record.first) * size
            last = min(record.stop, stop)
            yield at, read_exactly(self._device, at, (last - first) * size, inode.where)
            first = last
        if first < stop:
            raise Damaged(inode.where, None, f"block {first} of it is nowhere")

    def _check(self, inode: Inode, data: bytes, at: int, seal: Seal, is_sealed: bool) -> None:
        crc = int.from_bytes(data[seal.crc : seal.crc + CRC32C_BYTES], "little")
        if is_sealed and crc32c_around(data, seal.crc) != crc:
            raise Damaged(inode.where, at, "a block of it has a wrong checksum")
        address = int.from_bytes(data[seal.address : seal.address + _NUMBER], "big")
        owner = int.from_bytes(data[seal.owner : seal.owner + _NUMBER], "big")
        if owner != inode.number or address * SECTOR != at:
            raise Damaged(inode.where, at, "a block of it is that of something else")

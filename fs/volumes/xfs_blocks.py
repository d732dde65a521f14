"""Blocks of what XFS keeps in forks besides data: they say whose they are, and where they lie."""

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
    """Reads blocks of forks, of one or more blocks of the file system each."""

    def __init__(self, device: Device, layout: Geometry, maps: ExtentMaps) -> None:
        self._device, self._layout, self._maps = device, layout, maps

    def block(self, inode: Inode, fork: Fork, first: int, count: int, seal: Seal) -> bytes:
        """Return the `count` blocks of a fork from `first` on, which are one; checked by `seal`."""
        data, at = self.raw(inode, fork, first, count)
        if self._layout.is_v5:
            self._check(inode, data, at, seal)
        return data

    def raw(self, inode: Inode, fork: Fork, first: int, count: int) -> tuple[bytes, int]:
        """Return `count` blocks of a fork as they are, and where on the device the first lies."""
        size, pieces, missing, start = self._layout.block_size, [], first, 0
        for record in self._maps.mapped(inode, fork, first, first + count):
            if record.first > missing or record.is_unwritten:
                break
            at = self._layout.block_at(record.block) + (missing - record.first) * size
            stop = min(record.stop, first + count)
            pieces.append(read_exactly(self._device, at, (stop - missing) * size, inode.where))
            start, missing = (at if missing == first else start), stop
        if missing < first + count:
            raise Damaged(inode.where, None, f"block {missing} of it is nowhere")
        return b"".join(pieces), start

    def _check(self, inode: Inode, data: bytes, at: int, seal: Seal) -> None:
        crc = int.from_bytes(data[seal.crc : seal.crc + CRC32C_BYTES], "little")
        if crc32c_around(data, seal.crc) != crc:
            raise Damaged(inode.where, at, "a block of it has a wrong checksum")
        address = int.from_bytes(data[seal.address : seal.address + _NUMBER], "big")
        owner = int.from_bytes(data[seal.owner : seal.owner + _NUMBER], "big")
        if owner != inode.number or address * SECTOR != at:
            raise Damaged(inode.where, at, "a block of it is that of something else")

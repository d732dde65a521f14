"""Inodes of XFS: what stat(2) tells of them, and the two forks that hold what belongs to them."""

import os
import stat
from collections.abc import Container
from struct import Struct
from typing import NamedTuple

from cachetools import LRUCache

from backgate.fs.volume import Device
from backgate.fs.volumes.checksums import crc32c_around
from backgate.fs.volumes.reading import read_exactly
from backgate.fs.volumes.xfs_geometry import Geometry
from backgate.gateway.errors import Damaged
from backgate.gateway.units import SECOND_NS

MAGIC, CRC_AT = b"IN", 100
DEVICE, LOCAL, EXTENTS, TREE = 0, 1, 2, 3  # formats of a fork
CHUNK = 64  # inodes that are allocated together, and so read together
_CHUNKS_KEPT = 128  # 4 MiB with inodes of 512 bytes

_CORE = Struct(">2sHBBHIII")
_SIZE_AT, _SIZES = 56, Struct(">QQ")  # bytes of the file, and blocks that it takes
_TIMES_AT, _BIG_TIMES_OF = 32, Struct(">QQQ")  # of access, of the data, of the inode
_OLD_TIME = Struct(">iI")
_COUNTS_AT, _COUNTS = 76, Struct(">IHBb")
_WIDE_COUNT_AT, _WIDE_COUNT = 24, Struct(">Q")
_FLAGS_AT, _FLAGS = 90, Struct(">H")
_NEW_AT, _NEW = 120, Struct(">Q24xQ16s")  # flags2, own number, uuid
_OLD_FORK, _NEW_FORK = 100, 176  # bytes in front of the data fork
_BIG_TIMES, _BIG_COUNTS, _REALTIME = 0x8, 0x10, 0x1
_BIG_EPOCH_NS = -(1 << 31) * SECOND_NS
_MINOR_BITS = 18
_KINDS = {
    stat.S_IFREG,
    stat.S_IFDIR,
    stat.S_IFLNK,
    stat.S_IFCHR,
    stat.S_IFBLK,
    stat.S_IFIFO,
    stat.S_IFSOCK,
}
_DEVICES = {stat.S_IFCHR, stat.S_IFBLK}
_SIZE_MAX = (1 << 63) - 1
TARGET_MAX = 1024  # bytes of a symlink's target


class Fork(NamedTuple):
    """One of the two things an inode leads to: its data, or its extended attributes."""

    format: int
    data: bytes  # as it stands in the inode
    extents: int  # how many there are


class Inode(NamedTuple):
    """One inode, as far as a reader needs it."""

    number: int
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int  # bytes
    allocated: int  # bytes
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    rdev: int
    is_realtime: bool  # its data lies on another device
    data: Fork
    attributes: Fork | None

    @property
    def where(self) -> str:
        """What it is called in errors."""
        return f"inode {self.number}"


class Inodes:
    """The inodes of one file system; those that lie together are read together.

    The checksums of those that begin at bytes `unsealed` of the device are older than they are.
    """

    def __init__(self, device: Device, layout: Geometry, unsealed: Container[int]) -> None:
        self._device, self._layout, self._unsealed = device, layout, unsealed
        self._chunks: LRUCache[int, bytes] = LRUCache(_CHUNKS_KEPT)

    def inode(self, number: int) -> Inode:
        """Read one inode; `Damaged` where it is none, is not in use or does not hold together."""
        layout = self._layout
        at = layout.inode_at(number)
        raw = self._raw(number, at)
        where = f"inode {number}"
        if len(raw) != layout.inode_size or not raw.startswith(MAGIC):
            raise Damaged(where, at, "there is none")
        if layout.is_v5:
            self._check(number, raw, at)
        return parse(number, raw, layout.block_size)

    def _raw(self, number: int, at: int) -> bytes:
        size = self._layout.inode_size
        index = number % CHUNK
        start = at - index * size
        if start < 0:  # chunks begin at multiples of 64, wherever inodes really do
            return read_exactly(self._device, at, size, "inode")
        first = number - index
        chunk = self._chunks.get(first)
        if chunk is None:
            chunk = self._chunks[first] = self._device.read_at(start, CHUNK * size)
        return chunk[index * size : (index + 1) * size]

    def _check(self, number: int, raw: bytes, at: int) -> None:
        _, own_number, uuid = _NEW.unpack_from(raw, _NEW_AT)
        where = f"inode {number}"
        crc = int.from_bytes(raw[CRC_AT : CRC_AT + 4], "little")
        if at not in self._unsealed and crc32c_around(raw, CRC_AT) != crc:
            raise Damaged(where, at, "its checksum is wrong")
        if own_number != number or uuid != self._layout.meta_uuid:
            raise Damaged(where, at, "says that it is another one")


def parse(number: int, raw: bytes, block_size: int) -> Inode:
    """Return inode `number`, of whose bytes the checksum has been seen to."""
    where = f"inode {number}"
    _, mode, version, data_format, old_links, uid, gid, nlink = _CORE.unpack_from(raw)
    size, blocks = _SIZES.unpack_from(raw, _SIZE_AT)
    count, attribute_count, fork_at, attribute_format = _COUNTS.unpack_from(raw, _COUNTS_AT)
    flags2 = _NEW.unpack_from(raw, _NEW_AT)[0] if version >= 3 else 0
    if flags2 & _BIG_COUNTS:
        (count,) = _WIDE_COUNT.unpack_from(raw, _WIDE_COUNT_AT)
        (attribute_count,) = Struct(">I").unpack_from(raw, _COUNTS_AT)
    kind = stat.S_IFMT(mode)
    begin = _NEW_FORK if version >= 3 else _OLD_FORK
    middle = begin + fork_at * 8 if fork_at else len(raw)
    if not mode:
        raise Damaged(where, None, "is not in use")
    if kind not in _KINDS or size > _SIZE_MAX or middle > len(raw):
        raise Damaged(where, None, f"does not hold together: mode {mode:o}, {size} bytes")
    if kind == stat.S_IFLNK and size > TARGET_MAX:
        raise Damaged(where, None, f"a symlink of {size} bytes")
    times = _times(raw, bool(flags2 & _BIG_TIMES))
    data = Fork(data_format, raw[begin:middle], count)
    return Inode(
        number=number,
        mode=mode,
        uid=uid,
        gid=gid,
        nlink=old_links if version == 1 else nlink,
        size=size,
        allocated=blocks * block_size,
        atime_ns=times[0],
        mtime_ns=times[1],
        ctime_ns=times[2],
        rdev=_device(data.data) if kind in _DEVICES else 0,
        is_realtime=bool(_FLAGS.unpack_from(raw, _FLAGS_AT)[0] & _REALTIME),
        data=data,
        attributes=Fork(attribute_format, raw[middle:], attribute_count) if fork_at else None,
    )


def _times(raw: bytes, are_big: bool) -> tuple[int, int, int]:
    if are_big:  # nanoseconds since the earliest of the old times
        first, second, third = _BIG_TIMES_OF.unpack_from(raw, _TIMES_AT)
        return first + _BIG_EPOCH_NS, second + _BIG_EPOCH_NS, third + _BIG_EPOCH_NS
    (a, an), (m, mn), (c, cn) = (_OLD_TIME.unpack_from(raw, _TIMES_AT + 8 * at) for at in range(3))
    return a * SECOND_NS + an, m * SECOND_NS + mn, c * SECOND_NS + cn


def _device(fork: bytes) -> int:
    number = int.from_bytes(fork[:4], "big")
    return os.makedev(number >> _MINOR_BITS & 0x3FFF, number & ((1 << _MINOR_BITS) - 1))

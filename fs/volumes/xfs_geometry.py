"""What the superblock of an XFS file system says of its layout."""

from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from backgate.fs.volume import Device
from backgate.fs.volumes.checksums import crc32c_around
from backgate.fs.volumes.reading import read_exactly
from backgate.gateway.errors import Damaged

MAGIC = b"XFSB"
SMALLEST_SECTOR, LARGEST_BLOCK = 512, 65536  # bytes
_LARGEST_BLOCK_LOG = 16
CRC_AT = 224  # of the superblock
SUPER = "superblock"

_SIZES = Struct(">4sIQ16x16sQQ20xII4xIHHH2x12sBxBBB")
_FEATURES_AT, _FEATURES = 200, Struct(">I12xII")  # features2, and of version 5 two more
_DIRECTORY_LOG_AT, _LSN, _META_UUID = 192, slice(240, 248), slice(248, 264)

_VERSION, _VERSIONS = 0xF, (4, 5)
_DIRECTORIES_2, _IGNORES_CASE = 0x2000, 0x4000  # of the version number
_FILE_TYPES_2 = 0x200  # of features2, in version 4
_FILE_TYPES, _OTHER_UUID, _NEEDS_REPAIR, _KNOWN = 0x1, 0x4, 0x10, 0x1FF  # of incompat
_INODE_SIZES = range(8, 12)  # logarithms
_AG_BLOCKS_LOG_MAX = 31
_AGS_MAX = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Sizes and features of one file system."""

    is_v5: bool  # with checksums
    label: str
    uuid: bytes  # as the administrator sees it
    meta_uuid: bytes  # as the structures carry it
    block_size: int  # bytes
    blocks: int
    ag_blocks: int
    ag_count: int
    ag_block_bits: int  # of a block's number that say where in its group it is
    inode_size: int  # bytes
    inode_bits: int  # of an inode's number that say where in its block it is
    directory_block_size: int  # bytes
    root: int  # number of the inode at the top
    log_start: int  # its first block; 0: it is on another device
    log_blocks: int
    lsn: int  # where in the log its last change stands; 0 in version 4
    has_file_types: bool  # in directories
    ignores_case: bool  # of ASCII letters, in names
    log_features: int  # that whoever replays the log must know
    needs_repair: bool

    @property
    def tree_header(self) -> int:
        """The bytes in front of the records in a block of a map of extents."""
        return 72 if self.is_v5 else 24

    def has_block(self, number: int, count: int = 1) -> bool:
        """Tell whether there are `count` blocks from `number` on, in one allocation group."""
        group, block = number >> self.ag_block_bits, number & ((1 << self.ag_block_bits) - 1)
        return (
            group < self.ag_count
            and block + count <= self.ag_blocks
            and group * self.ag_blocks + block + count <= self.blocks
        )

    def block_at(self, number: int) -> int:
        """Return where block `number` begins, in bytes; `Damaged` when there is no such block."""
        if not self.has_block(number):
            raise Damaged("", None, f"block {number} is not of this file system")
        group, block = number >> self.ag_block_bits, number & ((1 << self.ag_block_bits) - 1)
        return (group * self.ag_blocks + block) * self.block_size

    def has_inode(self, number: int) -> bool:
        """Tell whether an inode of this number can exist."""
        return number > 0 and self.has_block(number >> self.inode_bits)

    def inode_at(self, number: int) -> int:
        """Return where inode `number` begins, in bytes; `Damaged` when there is no such inode."""
        if not self.has_inode(number):
            raise Damaged("", None, f"inode {number} is not of this file system")
        within = number & ((1 << self.inode_bits) - 1)
        return self.block_at(number >> self.inode_bits) + within * self.inode_size


def geometry(device: Device, *, unsealed: bool = False) -> Geometry:
    """Read the superblock; `Damaged` where it does not hold together or is not supported.

    `unsealed`: it comes out of the log, and its checksum is older than it.
    """
    data = read_exactly(device, 0, SMALLEST_SECTOR, SUPER)
    fields = _Fields(*_SIZES.unpack_from(data))
    features2, incompatible, of_log = _FEATURES.unpack_from(data, _FEATURES_AT)
    is_v5 = fields.version & _VERSION == _VERSIONS[1]
    _check_version(data, fields.version, incompatible if is_v5 else 0)
    directory_log = data[_DIRECTORY_LOG_AT]
    _check_sizes(fields, directory_log)
    if is_v5 and not unsealed:
        _check_sum(device, data, fields.sector_size)
    file_types = incompatible & _FILE_TYPES if is_v5 else features2 & _FILE_TYPES_2
    return Geometry(
        is_v5=is_v5,
        label=fields.label.partition(b"\0")[0].decode("utf-8", "backslashreplace"),
        uuid=fields.uuid,
        meta_uuid=data[_META_UUID] if is_v5 and incompatible & _OTHER_UUID else fields.uuid,
        block_size=fields.block_size,
        blocks=fields.blocks,
        ag_blocks=fields.ag_blocks,
        ag_count=fields.ag_count,
        ag_block_bits=fields.ag_block_bits,
        inode_size=fields.inode_size,
        inode_bits=fields.inode_bits,
        directory_block_size=fields.block_size << directory_log,
        root=fields.root,
        log_start=fields.log_start,
        log_blocks=fields.log_blocks,
        lsn=int.from_bytes(data[_LSN], "big") if is_v5 else 0,
        has_file_types=bool(file_types),
        ignores_case=bool(fields.version & _IGNORES_CASE),
        log_features=of_log if is_v5 else 0,
        needs_repair=bool(is_v5 and incompatible & _NEEDS_REPAIR),
    )


class _Fields(NamedTuple):
    magic: bytes
    block_size: int
    blocks: int
    uuid: bytes
    log_start: int
    root: int
    ag_blocks: int
    ag_count: int
    log_blocks: int
    version: int
    sector_size: int
    inode_size: int
    label: bytes
    block_log: int
    inode_log: int
    inode_bits: int
    ag_block_bits: int


def _check_version(data: bytes, version: int, incompatible: int) -> None:
    if not data.startswith(MAGIC):
        raise Damaged(SUPER, 0, "this is no XFS")
    if version & _VERSION not in _VERSIONS:
        raise Damaged(SUPER, 0, f"version {version & _VERSION} is not supported")
    if version & _VERSION == _VERSIONS[0] and not version & _DIRECTORIES_2:
        raise Damaged(SUPER, 0, "directories of version 1 are not supported")
    if incompatible & ~_KNOWN:
        raise Damaged(SUPER, 0, f"features {incompatible & ~_KNOWN:#x} are not supported")


def _check_sizes(fields: _Fields, directory_log: int) -> None:
    block_size, inode_size = fields.block_size, fields.inode_size
    if not (
        fields.block_log <= _LARGEST_BLOCK_LOG
        and SMALLEST_SECTOR <= block_size == 1 << fields.block_log
        and SMALLEST_SECTOR <= fields.sector_size <= LARGEST_BLOCK
        and fields.inode_log in _INODE_SIZES
        and inode_size == 1 << fields.inode_log <= block_size
        and fields.inode_bits == fields.block_log - fields.inode_log
        and fields.block_log + directory_log <= _LARGEST_BLOCK_LOG
        and fields.ag_block_bits <= _AG_BLOCKS_LOG_MAX
        and 0 < fields.ag_blocks <= 1 << fields.ag_block_bits
        and 0 < fields.ag_count <= _AGS_MAX
        and fields.blocks <= fields.ag_blocks * fields.ag_count
    ):
        raise Damaged(SUPER, 0, "its sizes do not hold together")


def _check_sum(device: Device, data: bytes, sector_size: int) -> None:
    sector = data
    if sector_size > len(data):
        sector = read_exactly(device, 0, sector_size, SUPER)
    if crc32c_around(sector, CRC_AT) != int.from_bytes(data[CRC_AT : CRC_AT + 4], "little"):
        raise Damaged(SUPER, 0, "its checksum is wrong")

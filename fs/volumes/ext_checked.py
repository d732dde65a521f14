"""ext4 with `metadata_csum`: what has a wrong checksum is not believed.

That is inodes, and blocks of directories, extents and attributes; fs-explorer does not look at it.

A wrong inode is a fault of that file alone: its name is listed, as the kernel does.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import google_crc32c
from fs_explorer.errors import ChecksumError, CorruptDataError
from fs_explorer.filesystems.ext import ExtFS
from fs_explorer.io.source import RandomAccess
from fs_explorer.tree import Context
from fs_explorer.tree import Node as Parsed

HAS_CHECKSUMS, HAS_SEED = 0x400, 0x2000  # of the read-only, and of the incompatible features
HAS_CLUSTERS, HAS_KINDS, HAS_META_GROUPS = 0x200, 0x2, 0x10  # the same
READ_ONLY_FEATURES_AT, BLOCKS_PER_GROUP_AT = 0x64, 0x20  # in the superblock; clusters follow
SUPERBLOCK = 1024  # bytes
LARGEST_CLUSTER = 1 << 29  # bytes
INDEXED, INLINE = 0x1000, 0x10000000  # flags of an inode
SEED_AT = 0x270  # in the superblock
LOW_AT, HIGH_AT = 0x7C, 0x82  # where an inode has its checksum
GENERATION_AT = 0x64
TAIL = struct.Struct("<IHBBI")  # at the end of a block of a directory
TAIL_KIND = 0xDE
XATTR_CHECKSUM_AT = 16  # in a block of attributes
ENTRY = struct.Struct("<IH")  # how an entry of a directory begins: inode, length


def checksum(start: int, *pieces: bytes) -> int:
    """Return the CRC-32C of `pieces` as ext4 has it, continuing from `start`: not inverted."""
    for piece in pieces:
        start = ~google_crc32c.extend(~start & 0xFFFFFFFF, piece) & 0xFFFFFFFF
    return start


class Ext(ExtFS):
    """The library's reader, with two things read as Linux does.

    With `bigalloc` a group may have more blocks than the library allows, for they are counted in
    clusters. Without `filetype` what would be the kind of an entry is noise, and not a part of the
    length of its name.
    """

    def _parse_super(self, superblock: bytes) -> None:
        (features,) = struct.unpack_from("<I", superblock, READ_ONLY_FEATURES_AT)
        if features & HAS_CLUSTERS:
            self._parse_clusters(superblock)
        else:
            super()._parse_super(superblock)
        self.tells_kinds = bool(self.incompat & HAS_KINDS)
        self.incompat |= HAS_KINDS

    def _parse_clusters(self, superblock: bytes) -> None:
        blocks, clusters = struct.unpack_from("<II", superblock, BLOCKS_PER_GROUP_AT)
        counted = bytearray(superblock)
        struct.pack_into("<I", counted, BLOCKS_PER_GROUP_AT, clusters)
        super()._parse_super(bytes(counted))
        if not clusters or blocks % clusters or blocks // clusters > LARGEST_CLUSTER // self.bs:
            raise CorruptDataError(f"groups of {blocks} blocks and {clusters} clusters")
        self.blocks_per_group = blocks
        self.groups = -(-(self.blocks_count - self.first_data_block) // blocks)
        if self.inodes_count > self.groups * self.inodes_per_group:
            raise CorruptDataError(f"{self.inodes_count} inodes in {self.groups} groups")

    def _desc_block_no(self, index: int) -> int:
        # Clusters begin with block 0, also where the superblock is in block 1.
        is_behind = self.bs == SUPERBLOCK and self.first_data_block == 0
        is_grouped = self.incompat & HAS_META_GROUPS and index >= max(1, self.first_meta_bg)
        return int(super()._desc_block_no(index)) + (is_behind and not is_grouped)


class CheckedExt(Ext):
    """The library's reader, with each checksum looked at where its bytes are read."""

    def __init__(self, access: RandomAccess, shared: Context) -> None:
        super().__init__(access, shared)
        superblock = access.read_exact(1024, 1024)
        self._seed = checksum(0xFFFFFFFF, self.uuid)
        if self.incompat & HAS_SEED:
            (self._seed,) = struct.unpack_from("<I", superblock, SEED_AT)
        self._wrong: set[int] = set()  # inodes
        self._check_block: Callable[[int, bytes], None] | None = None

    def is_right(self, number: int, raw: bytes) -> bool:
        """Check the checksum of an inode."""
        expected = checksum(self._of_inode(number, raw), *_without_checksum(raw))
        (stored,) = struct.unpack_from("<H", raw, LOW_AT)
        if len(raw) > HIGH_AT + 2 and struct.unpack_from("<H", raw, 0x80)[0] >= HIGH_AT + 2 - 128:
            stored |= struct.unpack_from("<H", raw, HIGH_AT)[0] << 16
        else:
            expected &= 0xFFFF
        return bool(stored == expected)

    def _parse_inode(self, number: int, raw: bytes) -> Any:
        self._wrong.discard(number)
        if not self.is_right(number, raw):
            self._wrong.add(number)
        return super()._parse_inode(number, raw)

    def _fill(self, node: Parsed, inode: Any) -> Parsed:
        if inode.ino in self._wrong:
            node.statted, node.error = True, self._fault(inode.ino)
            return node
        return super()._fill(node, inode)

    def _data_ra(self, inode: Any) -> Any:
        self._require(inode)
        return super()._data_ra(inode)

    def _xattrs_raw(self, inode: Any) -> dict[str, Any]:
        self._require(inode)
        self._check_block = self._check_attributes
        try:
            return super()._xattrs_raw(inode)
        finally:
            self._check_block = None

    def _extent_map(self, inode: Any) -> Any:
        seed = self._of_inode(inode.ino, inode.raw)

        def check(number: int, block: bytes) -> None:
            most = struct.unpack_from("<H", block, 4)[0]
            tail = 12 + 12 * most  # behind the header and as many entries as there is room for
            if tail + 4 > len(block) or _stored(block, tail) != checksum(seed, block[:tail]):
                raise ChecksumError(f"block {number} of extents has a wrong checksum")

        self._check_block = check
        try:
            return super()._extent_map(inode)
        finally:
            self._check_block = None

    def _read_block(self, number: int) -> bytes:
        block = super()._read_block(number)
        if self._check_block is not None:
            self._check_block(number, block)
        return block

    def _dir_areas(self, inode: Any) -> Iterator[tuple[bytes, int, int]]:
        if inode.flags & INLINE:
            yield from super()._dir_areas(inode)
            return
        seed = self._of_inode(inode.ino, inode.raw)
        for buffer, start, end in super()._dir_areas(inode):
            self._check_directory(inode, seed, buffer[start:end])
            yield buffer, start, end

    def _check_directory(self, inode: Any, seed: int, block: bytes) -> None:
        if inode.flags & INDEXED and _is_index(block):
            return
        zero, length, _, kind, stored = TAIL.unpack_from(block, len(block) - TAIL.size)
        if (zero, length, kind) == (0, TAIL.size, TAIL_KIND):
            if stored != checksum(seed, block[: -TAIL.size]):
                raise ChecksumError(f"a block of directory {inode.ino} has a wrong checksum")
        else:
            raise ChecksumError(f"a block of directory {inode.ino} has lost its checksum")

    def _check_attributes(self, number: int, block: bytes) -> None:
        before, behind = block[:XATTR_CHECKSUM_AT], block[XATTR_CHECKSUM_AT + 4 :]
        expected = checksum(self._seed, number.to_bytes(8, "little"), before, bytes(4), behind)
        if _stored(block, XATTR_CHECKSUM_AT) != expected:
            raise ChecksumError(f"block {number} of attributes has a wrong checksum")

    def _of_inode(self, number: int, raw: bytes) -> int:
        """Return what the checksums of all that belongs to an inode start from."""
        generation = raw[GENERATION_AT : GENERATION_AT + 4]
        return checksum(self._seed, number.to_bytes(4, "little"), generation)

    def _require(self, inode: Any) -> None:
        if inode.ino in self._wrong:
            raise ChecksumError(self._fault(inode.ino))

    def _fault(self, number: int) -> str:
        return f"inode {number} has a wrong checksum"


def _without_checksum(raw: bytes) -> tuple[bytes, ...]:
    head = (raw[:LOW_AT], bytes(2), raw[LOW_AT + 2 : 128])
    if len(raw) <= 128:
        return head
    fits = struct.unpack_from("<H", raw, 0x80)[0] >= HIGH_AT + 2 - 128
    if not fits:
        return (*head, raw[128:])
    return (*head, raw[128:HIGH_AT], bytes(2), raw[HIGH_AT + 2 :])


def _stored(block: bytes, at: int) -> int:
    found: int = struct.unpack_from("<I", block, at)[0]
    return found


def _is_index(block: bytes) -> bool:
    """True for a block of a directory's index, which looks empty: its names are in other blocks."""
    inode, length = ENTRY.unpack_from(block)
    if inode == 0 and length in (len(block), 65535, 0):
        return True
    _, second = ENTRY.unpack_from(block, 12)  # the root: ".", and ".." up to the end
    return length == 12 and second in (len(block) - 12, 65535 - 11)

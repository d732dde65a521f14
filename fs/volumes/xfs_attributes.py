"""Extended attributes of XFS: in the inode, or in leaves below a tree, long values in blocks."""

from collections.abc import Iterator
from struct import Struct, pack
from typing import NamedTuple

from backgate.fs.volumes.xfs_blocks import ForkBlocks, Seal
from backgate.fs.volumes.xfs_geometry import Geometry
from backgate.fs.volumes.xfs_inode import EXTENTS, LOCAL, TREE, Fork, Inode
from backgate.gateway.errors import Damaged

VALUE_MAX = 65536  # bytes
ALL_MAX = 4 << 20  # bytes of names and values of one inode
NAMES_MAX = 1024  # of one inode; the kernel lists no more than fit into 64 KiB
_LEAVES_MAX = 1024
_NODES_MAX = 5  # of the tree, one below another

_INDEX_SEAL = Seal(crc=12, address=16, owner=48)
_VALUE_SEAL = Seal(crc=12, address=40, owner=32)
_VALUE_MAGIC, _VALUE_HEADER = b"XARM", 56
_NODE_MAGICS, _LEAF_MAGICS = (b"\xfe\xbe", b"\x3e\xbe"), (b"\xfb\xee", b"\x3b\xee")
_NODE_HEADER, _LEAF_HEADER, _LEAF_COUNT = (16, 64), (32, 80), (12, 56)  # bytes, version 4, 5

_SHORT, _COUNT, _NUMBER = Struct(">HB"), Struct(">H"), Struct(">I")
_SHORT_ENTRY, _SHORT_START = Struct(">BBB"), 4
_ENTRY, _HERE, _ELSEWHERE = Struct(">4xHBx"), Struct(">HB"), Struct(">IIB")
_IS_HERE, _TRUSTED, _SECURITY, _HIDDEN = 0x01, 0x02, 0x04, 0x88  # flags; hidden: half done, parents
_NAMESPACES = {0: b"user.", _TRUSTED: b"trusted.", _SECURITY: b"security."}

_ACLS = {
    b"trusted.SGI_ACL_FILE": b"system.posix_acl_access",
    b"trusted.SGI_ACL_DEFAULT": b"system.posix_acl_default",
}
_ACL_COUNT, _ACL_ENTRY = Struct(">I"), Struct(">IIH2x")
_ACL_VERSION, _NAMED, _NOBODY = 2, (0x02, 0x08), 0xFFFFFFFF  # entries for one user or group


class _Found(NamedTuple):
    name: bytes
    value: bytes


class Attributes:
    """The extended attributes in one file system."""

    def __init__(self, layout: Geometry, blocks: ForkBlocks) -> None:
        self._layout, self._blocks = layout, blocks

    def all(self, inode: Inode) -> dict[bytes, bytes]:
        """Return them with their namespace and as getxattr(2) has them; ACLs as Linux has them."""
        answer: dict[bytes, bytes] = {}
        size = 0
        for name, value in self._found(inode):
            answer[name] = value
            size += len(name) + len(value)
            if len(answer) > NAMES_MAX or size > ALL_MAX:
                raise Damaged(inode.where, None, "more extended attributes than can be shown")
        for stored, shown in _ACLS.items():
            if stored in answer:
                answer[shown] = _acl(inode, answer.pop(stored))
        return answer

    def _found(self, inode: Inode) -> Iterator[_Found]:
        fork = inode.attributes
        if fork is None or not has_attributes(inode):
            return
        if fork.format == LOCAL:
            yield from _short(inode, fork.data)
        elif fork.format in (EXTENTS, TREE):
            for leaf in self._leaves(inode, fork):
                yield from self._in_leaf(inode, fork, leaf)
        else:
            raise Damaged(inode.where, None, f"extended attributes of format {fork.format}")

    def _leaves(self, inode: Inode, fork: Fork) -> Iterator[bytes]:
        is_v5 = self._layout.is_v5
        block = self._index(inode, fork, 0)
        for _ in range(_NODES_MAX):
            if block[8:10] != _NODE_MAGICS[is_v5]:
                break
            (first,) = _NUMBER.unpack_from(block, _NODE_HEADER[is_v5] + 4)
            block = self._index(inode, fork, first)
        for _ in range(_LEAVES_MAX):
            if block[8:10] != _LEAF_MAGICS[is_v5]:
                break
            yield block
            (following,) = _NUMBER.unpack_from(block)
            if not following:
                return
            block = self._index(inode, fork, following)
        raise Damaged(inode.where, None, "its extended attributes do not hold together")

    def _index(self, inode: Inode, fork: Fork, number: int) -> bytes:
        return self._blocks.block(inode, fork, number, 1, _INDEX_SEAL)

    def _in_leaf(self, inode: Inode, fork: Fork, leaf: bytes) -> Iterator[_Found]:
        is_v5 = self._layout.is_v5
        (count,) = _COUNT.unpack_from(leaf, _LEAF_COUNT[is_v5])
        start = _LEAF_HEADER[is_v5]
        if start + count * _ENTRY.size > len(leaf):
            raise Damaged(inode.where, None, f"{count} extended attributes in one block")
        for where, flags in _ENTRY.iter_unpack(leaf[start : start + count * _ENTRY.size]):
            if flags & _HIDDEN:
                continue
            layout = _HERE if flags & _IS_HERE else _ELSEWHERE
            name_at = where + layout.size
            if name_at > len(leaf):
                raise Damaged(inode.where, None, "an extended attribute is cut off")
            *first, length, name_length = layout.unpack_from(leaf, where)
            value_at = name_at + name_length
            if flags & _IS_HERE:
                value = leaf[value_at : value_at + length]
            else:
                value = self._value(inode, fork, first[0], length)
            if value_at > len(leaf) or len(value) != length:
                raise Damaged(inode.where, None, "an extended attribute is cut off")
            yield _Found(_named(inode, flags, leaf[name_at:value_at]), value)

    def _value(self, inode: Inode, fork: Fork, first: int, length: int) -> bytes:
        size = self._layout.block_size
        header = _VALUE_HEADER if self._layout.is_v5 else 0
        count = -(-length // (size - header))
        if length > VALUE_MAX:
            raise Damaged(inode.where, None, f"an extended attribute of {length} bytes")
        if not self._layout.is_v5:
            return self._blocks.raw(inode, fork, first, count)[:length]
        pieces = []
        for number in range(first, first + count):
            block = self._blocks.block(inode, fork, number, 1, _VALUE_SEAL)
            (stored,) = _NUMBER.unpack_from(block, 8)
            if not block.startswith(_VALUE_MAGIC) or header + stored > size:
                raise Damaged(inode.where, None, "an extended attribute does not hold together")
            pieces.append(block[header : header + stored])
        return b"".join(pieces)


def has_attributes(inode: Inode) -> bool:
    """Tell whether there may be extended attributes, from the inode alone."""
    fork = inode.attributes
    if fork is None:
        return False
    if fork.format == LOCAL:
        return len(fork.data) >= _SHORT.size and fork.data[2] > 0
    return fork.extents > 0


def _short(inode: Inode, data: bytes) -> Iterator[_Found]:
    at = _SHORT_START
    for _ in range(data[2]):
        if at + _SHORT_ENTRY.size > len(data):
            raise Damaged(inode.where, None, "its extended attributes are cut off")
        name_length, length, flags = _SHORT_ENTRY.unpack_from(data, at)
        name_at = at + _SHORT_ENTRY.size
        value_at = name_at + name_length
        at = value_at + length
        if at > len(data):
            raise Damaged(inode.where, None, "its extended attributes are cut off")
        if not flags & _HIDDEN:
            yield _Found(_named(inode, flags, data[name_at:value_at]), data[value_at:at])


def _named(inode: Inode, flags: int, name: bytes) -> bytes:
    namespace = _NAMESPACES.get(flags & (_TRUSTED | _SECURITY))
    if namespace is None or not name or b"\0" in name:
        raise Damaged(inode.where, None, f"an extended attribute is called {name!r}")
    return namespace + name


def _acl(inode: Inode, stored: bytes) -> bytes:
    count = _ACL_COUNT.unpack_from(stored)[0] if len(stored) >= _ACL_COUNT.size else -1
    entries = stored[_ACL_COUNT.size :]
    if count < 0 or count * _ACL_ENTRY.size > len(entries):
        raise Damaged(inode.where, None, "an access control list is cut off")
    told = [pack("<I", _ACL_VERSION)]
    for tag, owner, permissions in _ACL_ENTRY.iter_unpack(entries[: count * _ACL_ENTRY.size]):
        told.append(pack("<HHI", tag & 0xFFFF, permissions, owner if tag in _NAMED else _NOBODY))
    return b"".join(told)

"""ext2, ext3 and ext4, with the journal replayed."""

import struct
from typing import Any

from fs_explorer.entry import EntryType
from fs_explorer.tree import Node as Parsed

from backgate.fs.volume import Device, Node
from backgate.fs.volumes.explorer import Explored, context
from backgate.fs.volumes.ext_changed import ChangedExt
from backgate.fs.volumes.ext_checked import HAS_CHECKSUMS, CheckedExt, Ext
from backgate.fs.volumes.jbd2 import replay_journal
from backgate.fs.volumes.jbd2_place import has_errors, superblock
from backgate.fs.volumes.replay import DAMAGE
from backgate.gateway.errors import Damaged

XATTRS = struct.pack("<I", 0xEA020000)  # in front of those in the inode itself
ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
ACL_ON_DISK, ACL_TOLD = 1, 2  # versions of the two forms
NAMED = (0x02, 0x08)  # tags of entries for one user or group, which alone have an id
NOBODY = 0xFFFFFFFF  # the id of the others
HAS_ERRORS = "it says that errors were found, which nothing has mended since"


class ExtFileSystem(Explored):
    """ext2, ext3 and ext4."""

    name = "ext4"
    driver = "fs_explorer.filesystems.ext:ExtDriver"
    sure = 90

    def __init__(self, device: Device) -> None:
        self._replay = replay_journal(device)
        super().__init__(self._replay.device)
        start = superblock(self._replay.device)
        damage = {DAMAGE: HAS_ERRORS} if start is not None and has_errors(start) else {}
        self.notes = {**self.notes, "format": self._tree.format, **self._replay.notes, **damage}

    def _opened(self) -> Any:
        tree = Ext(self._access, context())
        if not tree.ro_compat & HAS_CHECKSUMS:
            return tree
        if self._replay.changes is not None:
            return ChangedExt(self._access, tree.ctx, self._replay.changes)
        return CheckedExt(self._access, tree.ctx)

    def ref_fields(self, ref: Any) -> tuple[Any, ...]:
        return (ref,)

    def ref_of(self, fields: list[Any]) -> Any:
        return fields[0]

    def _inode(self, parsed: Parsed, handle: bytes) -> bytes:
        return parsed.ref.to_bytes(8, "big")  # type: ignore[no-any-return]

    def _node(self, parsed: Parsed) -> Node:
        if parsed.extra.get("inline") and parsed.type is not EntryType.DIR:
            # The kernel tells of sectors that are not there.
            parsed.stored_size = (parsed.stored_size or 0) + -(-(parsed.size or 0) // 512) * 512
        return super()._node(parsed)

    def _has_xattrs(self, parsed: Parsed) -> bool:
        inode = self._tree.inode(parsed.ref)
        begin = 128 + inode.extra_isize
        in_inode = inode.raw[begin : begin + 4] == XATTRS and any(inode.raw[begin + 4 : begin + 8])
        return bool(inode.file_acl or in_inode)

    def xattrs(self, node: bytes) -> dict[bytes, bytes]:
        found = super().xattrs(node)
        return {name: told_acl(value) if name in ACLS else value for name, value in found.items()}


def told_acl(stored: bytes) -> bytes:
    """Return an ACL as getxattr(2) has it, from the shorter form that lies on the disk."""
    try:
        (version,) = struct.unpack_from("<I", stored)
        if version != ACL_ON_DISK:
            raise Damaged("", None, f"an access control list of version {version}")
        told, at = struct.pack("<I", ACL_TOLD), 4
        while at < len(stored):
            tag, permissions = struct.unpack_from("<HH", stored, at)
            at += 4
            owner = NOBODY
            if tag in NAMED:
                (owner,) = struct.unpack_from("<I", stored, at)
                at += 4
            told += struct.pack("<HHI", tag, permissions, owner)
    except struct.error as error:
        raise Damaged("", None, "an access control list is cut off") from error
    return told

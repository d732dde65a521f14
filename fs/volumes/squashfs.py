"""squashfs 4: live systems, snaps, appliances."""

import stat
from typing import Any

from fs_explorer.tree import Node as Parsed
from msgspec.structs import replace

from backgate.fs.volume import Node
from backgate.fs.volumes.explorer import Explored

DOTS = 3  # bytes that a directory's size has for "." and ".."
NO_XATTRS = 0xFFFFFFFF  # index of an inode without


class Squashfs(Explored):
    """squashfs."""

    name = "squashfs"
    driver = "fs_explorer.filesystems.squashfs:SquashFSDriver"
    sure = 40  # older versions too: opening says that they are not read

    def ref_fields(self, ref: Any) -> tuple[Any, ...]:
        return (ref,)

    def ref_of(self, fields: list[Any]) -> Any:
        return fields[0]

    def _node(self, parsed: Parsed) -> Node:
        node = super()._node(parsed)
        is_directory = stat.S_ISDIR(node.mode)
        return replace(node, size=node.size + DOTS) if is_directory else node  # as the kernel tells

    def _has_xattrs(self, parsed: Parsed) -> bool:
        has: bool = self._tree.inode(parsed.ref).xattr != NO_XATTRS
        return has

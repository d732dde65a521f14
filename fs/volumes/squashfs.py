"""squashfs 4: live systems, snaps, appliances."""

from typing import Any

from fs_explorer.tree import Node as Parsed

from backgate.fs.volumes.explorer import Explored

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

    def _has_xattrs(self, parsed: Parsed) -> bool:
        has: bool = self._tree.inode(parsed.ref).xattr != NO_XATTRS
        return has

"""ISO 9660 with Rock Ridge or Joliet: installation media, and what is burnt onto a disc."""

from typing import Any

from fs_explorer.tree import Node as Parsed

from backgate.fs.volumes import load
from backgate.fs.volumes.explorer import Explored


class Iso9660(Explored):
    """ISO 9660."""

    name = "iso9660"
    driver = "fs_explorer.filesystems.iso9660:ISO9660Driver"
    sure = 90

    def ref_fields(self, ref: Any) -> tuple[Any, ...]:
        own = (ref.extents, ref.size, ref.is_dir, ref.zf, ref.dir_lba, ref.interleave)
        return *own, ref.ancestors

    def ref_of(self, fields: list[Any]) -> Any:
        extents, size, is_directory, packed, lba, interleave, ancestors = fields
        return load("fs_explorer.filesystems.iso9660:_Ref")(
            [(offset, length) for offset, length in extents],
            size,
            is_directory,
            None if packed is None else tuple(packed),
            lba,
            tuple(interleave),
            tuple(ancestors),
        )

    def _inode(self, parsed: Parsed, handle: bytes) -> bytes:
        return b""  # serial numbers are optional, and some writers give one to all files

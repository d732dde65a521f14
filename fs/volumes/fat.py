"""FAT12, FAT16, FAT32 and exFAT.

Their times have no zone, or one that was set by hand: FAT's are shown as if the clock had been
UTC's. What has no owner or permission bits is root's, and read-only where the attribute says so.
"""

from collections.abc import Iterator
from typing import Any

from fs_explorer.tree import Node as Parsed

from backgate.fs.volume import HANDLE_MAX
from backgate.fs.volumes import load
from backgate.fs.volumes.explorer import Explored
from backgate.gateway.errors import Damaged

IN_USE = 0x85  # the type of a file's entry in an exFAT directory
DEPTH_MAX = HANDLE_MAX // 8  # directories in one another; their clusters travel with the handle


class Fat(Explored):
    """FAT12, FAT16 and FAT32."""

    name = "vfat"
    driver = "fs_explorer.filesystems.fat:FATDriver"
    undecodable = "surrogatepass"
    sure = 70

    def ref_fields(self, ref: Any) -> tuple[Any, ...]:
        return ref.cluster, ref.size, ref.is_dir, *_bounded(ref.ancestors)

    def ref_of(self, fields: list[Any]) -> Any:
        cluster, size, is_directory, *ancestors = fields
        make = load("fs_explorer.filesystems.fat:_Ref")
        return make(cluster, size, is_directory, tuple(ancestors))

    def _inode(self, parsed: Parsed, handle: bytes) -> bytes:
        return b""  # two names never share one


class ExFat(Explored):
    """exFAT."""

    name = "exfat"
    driver = "fs_explorer.filesystems.exfat:ExFATDriver"
    undecodable = "surrogatepass"
    sure = 90

    def ref_fields(self, ref: Any) -> tuple[Any, ...]:
        known = (ref.cluster, ref.size, ref.valid, ref.contiguous, ref.is_dir)
        return *known, *_bounded(ref.ancestors)

    def ref_of(self, fields: list[Any]) -> Any:
        make = load("fs_explorer.filesystems.exfat:_Ref")
        return make(*fields[:5], tuple(fields[5:]))

    def _inode(self, parsed: Parsed, handle: bytes) -> bytes:
        return b""

    def _children_of(self, directory: Parsed) -> Iterator[Parsed]:
        """The library leaves out what has a wrong checksum; a directory is never short."""
        above = (*directory.ref.ancestors, directory.ref.cluster)
        for kind, entries in self._tree._sets(directory.ref):
            if kind == IN_USE:
                parsed = self._tree._child(entries, above)
                if parsed is None:
                    raise Damaged("", None, "an entry of a directory has a wrong checksum")
                yield parsed


def _bounded(ancestors: tuple[int, ...]) -> tuple[int, ...]:
    if len(ancestors) > DEPTH_MAX:
        raise Damaged("", None, f"more than {DEPTH_MAX} directories in one another")
    return ancestors

"""btrfs on one device, or mirrored over several of which one is here; all subvolumes.

The top of the tree is that of the whole file system (subvolume 5), so that every subvolume and
snapshot is reached, whichever would be mounted. All bytes come through the parser, which compares
them with their checksums; it is given the trees as they are once the log has been replayed.
"""

from typing import Any

from fs_explorer.tree import Node as Parsed

from backgate.fs.volumes import load
from backgate.fs.volumes.btrfs_data import CheckedData, provide_checksums
from backgate.fs.volumes.btrfs_replay import replay_logs
from backgate.fs.volumes.explorer import Explored, context

TOP = 5  # the subvolume that all others are below
_UNREPLAYED = "log tree not replayed"  # what the library, which cannot, says of any log


class Btrfs(Explored):
    """btrfs."""

    name = "btrfs"
    driver = "fs_explorer.filesystems.btrfs.fs:BtrfsDriver"
    sure = 70

    def _opened(self) -> Any:
        provide_checksums()
        shared = context()
        shared.options["btrfs_verify_csum"] = True
        tree = load("fs_explorer.filesystems.btrfs.fs:BtrfsFS")(self._access, shared)
        tree.default_subvol = TOP
        tree.trees, self._state = replay_logs(tree)
        tree.lra = CheckedData(tree)
        return tree

    def _known(self) -> dict[str, str]:
        known = super()._known()
        for doubled in (f" ({_UNREPLAYED})", f"{_UNREPLAYED}, "):  # the state tells
            known["format"] = known["format"].replace(doubled, "")
        return known | self._state

    def ref_fields(self, ref: Any) -> tuple[Any, ...]:
        return tuple(ref)  # subvolume, inode

    def ref_of(self, fields: list[Any]) -> Any:
        return tuple(fields)

    def _inode(self, parsed: Parsed, handle: bytes) -> bytes:
        return b"".join(number.to_bytes(8, "big") for number in parsed.ref)

    def _seen(self, parsed: Parsed, directory: Parsed) -> Parsed:
        sector = self._tree.sb.sectorsize
        parsed.stored_size = -(-(parsed.stored_size or 0) // sector) * sector  # as the kernel tells
        return parsed

    def _has_xattrs(self, parsed: Parsed) -> bool:
        return True  # only a search tells

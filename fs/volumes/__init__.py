"""The registry of layers and file systems, by the module that has them; asked in this order.

A file system comes before the layers that could be mistaken for it: a FAT boot sector looks like a
partition table.
"""

from importlib import import_module
from typing import Any

FILE_SYSTEMS: dict[str, str] = {  # name -> "module:Class", a `backgate.fs.volume.FileSystem`
    "ext4": "backgate.fs.volumes.ext:ExtFileSystem",
    "xfs": "backgate.fs.volumes.xfs:XfsFileSystem",
    "btrfs": "backgate.fs.volumes.btrfs:Btrfs",
    "exfat": "backgate.fs.volumes.fat:ExFat",
    "ntfs": "backgate.fs.volumes.ntfs:Ntfs",
    "vfat": "backgate.fs.volumes.fat:Fat",
    "squashfs": "backgate.fs.volumes.squashfs:Squashfs",
    "iso9660": "backgate.fs.volumes.iso9660:Iso9660",
}
LAYERS: dict[str, str] = {  # name -> "module:Class", a `backgate.fs.volume.Layer`
    "md": "backgate.fs.volumes.md:Md",
    "lvm": "backgate.fs.volumes.lvm:Lvm",
    "luks": "backgate.fs.volumes.luks:Luks",
    "bitlocker": "backgate.fs.volumes.bitlocker:BitLocker",
    "luks-second": "backgate.fs.volumes.luks:LuksSecond",
    "gpt": "backgate.fs.volumes.gpt:Gpt",
    "mbr": "backgate.fs.volumes.mbr:Mbr",
}


def load(place: str) -> Any:
    """Return the class that `place` ("module:Class") names; its module is only imported now."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)

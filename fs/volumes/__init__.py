"""The registry of layers and file systems, by the module that has them; asked in this order.

A file system comes before the layers that could be mistaken for it: a FAT boot sector looks like a
partition table.
"""

FILE_SYSTEMS: dict[str, str] = {}  # name -> "module:Class", a `backgate.fs.volume.FileSystem`
LAYERS: dict[str, str] = {  # name -> "module:Class", a `backgate.fs.volume.Layer`
    "gpt": "backgate.fs.volumes.gpt:Gpt",
    "mbr": "backgate.fs.volumes.mbr:Mbr",
}

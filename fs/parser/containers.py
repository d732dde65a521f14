"""Disks that come in a container: where its bytes lie in the files that it is made of."""

from backgate.fs.parser.asked import Blocks, Gateway, SourceDevice
from backgate.fs.parser.messages import Disk
from backgate.fs.volume import Device

RAW = "raw"


def open_container(
    gateway: Gateway, blocks: Blocks, number: int, disk: Disk, source: SourceDevice
) -> tuple[Device, str]:
    """Return the disk inside the container `disk`, and why it cannot be read (empty: it can)."""
    if disk.kind == RAW:
        return source, ""
    return source, f"{disk.kind} images are not supported"

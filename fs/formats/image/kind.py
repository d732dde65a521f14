"""What a look at the beginning and end of an image tells: its kind, and whether it is whole."""

import re
import struct
from dataclasses import dataclass

from backgate.gateway.source import Source

IMAGE = (".raw", ".img", ".vhd", ".vhdx", ".qcow2", ".vmdk", ".iso")
PACKED = (".gz", ".xz", ".zst")
SUFFIXES = (*IMAGE, *(image + packed for image in IMAGE for packed in PACKED))
# What others write beside images that have these suffixes: parts of a VMDK, and the disks of
# backups that are shown as what they are.
PARTS = re.compile(r"-(flat|delta|s\d{3}|f\d{3})\.vmdk$", re.IGNORECASE)
# What a guest wrote to its disk must not make another kind of it: a header there could name the
# disk of another guest as what lies below. Of a raw disk, a guest writes the beginning and the end;
# of a fixed VHD the beginning. Images of clouds are called .img and are qcow2, over nothing else.
ALWAYS_RAW = re.compile(r"\.(raw|iso)(\.(gz|xz|zst))?$", re.IGNORECASE)
RAW_OR_ALONE = re.compile(r"\.img(\.(gz|xz|zst))?$", re.IGNORECASE)
RAW_OR_VHD = re.compile(r"\.vhd(\.(gz|xz|zst))?$", re.IGNORECASE)
FOREIGN = "xo-vm-backups/"

HEAD = 512  # bytes that are looked at
SECTOR = 512  # bytes
QCOW2, VHDX, VMDK, VHD = b"QFI\xfb", b"vhdxfile", b"KDMV", b"conectix"
DESCRIPTOR = b"# Disk DescriptorFile"
QCOW2_BACKING_AT = 8  # where the place of the backing file's name is; 0: there is none
QCOW2_FEATURES_AT = 72  # where version 3 has what a reader must know
QCOW2_CORRUPT, QCOW2_DATA_ELSEWHERE = 0x2, 0x4
VHD_OLD_FOOTER = 511  # bytes; of Virtual PC before 2004


@dataclass(frozen=True, slots=True)
class Kind:
    """What an image is, and why it cannot be read ("": it can, as far as a look tells)."""

    name: str  # "raw", "qcow2", "vhd", "vhdx", "vmdk"
    reason: str = ""


def is_image(key: str) -> bool:
    """True when `key` has the suffix of an image, and is not a part of another backup."""
    is_foreign = key.startswith(FOREIGN) or f"/{FOREIGN}" in key
    return key.lower().endswith(SUFFIXES) and not is_foreign and not PARTS.search(key)


async def kind_of(key: str, source: Source) -> Kind:
    """Return what the image is, in at most two small reads; most names say too little."""
    if not source.size:
        return Kind("raw", "empty: it was never written")
    if ALWAYS_RAW.search(key):
        return _raw(source)
    head = bytes(await source.read_at(0, HEAD))
    if RAW_OR_ALONE.search(key):
        is_alone = head.startswith(QCOW2) and not _lies_over_another(head)
        return Kind("qcow2", _fault_of_qcow2(head)) if is_alone else _raw(source)
    if not RAW_OR_VHD.search(key):
        if head.startswith(QCOW2):
            return Kind("qcow2", _fault_of_qcow2(head))
        if head.startswith(VHDX):
            return Kind("vhdx")
        if head.startswith(VMDK) or DESCRIPTOR in head[: len(DESCRIPTOR) + 3]:
            return Kind("vmdk")
    tail = bytes(await source.read_at(max(0, source.size - HEAD), HEAD))
    if VHD in (tail[:8], tail[1:9]):
        return Kind("vhd")
    if head.startswith(VHD):
        return Kind("vhd", "truncated, or still being written: it ends without a footer")
    return _raw(source)


def _raw(source: Source) -> Kind:
    reason = f"truncated: {source.size} bytes are not a whole number of sectors"
    return Kind("raw", reason if source.size % SECTOR else "")


def _fault_of_qcow2(head: bytes) -> str:
    is_corrupt = _features_of_qcow2(head) & QCOW2_CORRUPT
    return "its writer marked it as corrupt" if is_corrupt else ""


def _lies_over_another(head: bytes) -> bool:
    (backing,) = struct.unpack_from(">Q", head.ljust(HEAD, b"\0"), QCOW2_BACKING_AT)
    return bool(backing or _features_of_qcow2(head) & QCOW2_DATA_ELSEWHERE)


def _features_of_qcow2(head: bytes) -> int:
    """Return what a reader must know, in version 3; the specification's "incompatible features"."""
    version = struct.unpack_from(">4xI", head)[0] if len(head) >= 8 else 0
    if version < 3 or len(head) < QCOW2_FEATURES_AT + 8:
        return 0
    return int(struct.unpack_from(">Q", head, QCOW2_FEATURES_AT)[0])

"""What can be told from its mark, but holds no files or none that can be read here.

An administrator who looks for a file learns more from "swap space" than from "unknown".
"""

from typing import NamedTuple

from backgate.fs.volume import Device

SWAP = "swap space, which holds no files"
SUSPENDED = "swap space that holds a machine put to sleep, and no files"
PAGES = (4096, 8192, 16384, 65536)  # bytes; swap has its mark at the end of its first page


class Mark(NamedTuple):
    """Bytes at an offset, and what they say."""

    offset: int
    magic: bytes
    meaning: str


def _unreadable(what: str) -> str:
    return f"{what}, which cannot be read here"


MARKS = (
    *(Mark(page - 10, b"SWAPSPACE2", SWAP) for page in PAGES),
    *(Mark(page - 10, b"SWAP-SPACE", SWAP) for page in PAGES),
    *(Mark(page - 10, b"S1SUSPEND\0", SUSPENDED) for page in PAGES),
    *(Mark(page - 10, b"S2SUSPEND\0", SUSPENDED) for page in PAGES),
    Mark(3, b"ReFS\0\0\0\0", _unreadable("ReFS")),
    Mark(3, b"-FVE-FS-", _unreadable("BitLocker")),
    Mark(0xC00, b"PRIVHEAD", _unreadable("a Windows dynamic disk (LDM)")),
    Mark(0, b"SPACEDB \0", _unreadable("a member of Windows Storage Spaces")),
    Mark(32, b"NXSB", _unreadable("Apple APFS")),
    Mark(1024, b"H+\0\x04", _unreadable("Apple HFS+")),
    Mark(1024, b"HX\0\x05", _unreadable("Apple HFS+")),
    Mark(1024, b"\x10\x20\xf5\xf2", _unreadable("F2FS")),
    Mark(1030, b"\x34\x34", _unreadable("NILFS2")),
    Mark(0x8000, b"JFS1", _unreadable("JFS")),
    Mark(0x10034, b"ReIsErFs", _unreadable("ReiserFS")),
    Mark(0x10034, b"ReIsEr2Fs", _unreadable("ReiserFS")),
    Mark(0x10034, b"ReIsEr3Fs", _unreadable("ReiserFS")),
    Mark(0x10000 + 1372, b"\x19\x01\x54\x19", _unreadable("UFS2")),
    Mark(8192 + 1372, b"\x54\x19\x01\x00", _unreadable("UFS1")),
    Mark(0, b"\xeb\x48\x90\x00OCFS", _unreadable("OCFS")),
    Mark(0x800, b"OCFSV2", _unreadable("OCFS2")),
    Mark(0x10000, b"\x01\x16\x19\x70", _unreadable("GFS2")),
    Mark(0x200000, b"\x0d\xd0\x01\xc0", _unreadable("VMware VMFS")),
    Mark(
        4096 + 24,
        bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"),
        _unreadable("a member of bcache"),
    ),
    Mark(
        4096 + 24,
        bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef"),
        _unreadable("bcachefs"),
    ),
    Mark(0, b"bluestore block device", _unreadable("a Ceph OSD")),
    Mark(0, b"VxVM", _unreadable("a Veritas volume")),
)
TYPES = {  # words of partition tables that say as much as a mark
    "Windows dynamic disk": _unreadable("a Windows dynamic disk (LDM)"),
    "Microsoft LDM metadata": _unreadable("a Windows dynamic disk (LDM)"),
    "Microsoft LDM data": _unreadable("a Windows dynamic disk (LDM)"),
    "Microsoft Storage Spaces": _unreadable("a member of Windows Storage Spaces"),
}
ZFS_LABELS = (0, 256 << 10)  # bytes: the first two of a pool member's four labels
ZFS_UBERBLOCKS = 128 << 10  # bytes, from where a label begins, and up to 128 KiB of them
ZFS_MAGICS = (b"\x0c\xb1\xba\x00\0\0\0\0", b"\0\0\0\0\x00\xba\xb1\x0c")


def meaning(device: Device) -> str:
    """Return what lies on `device` in words for an administrator, "" when no mark is known."""
    head = device.read_at(0, max(PAGES) + 4096)
    for mark in MARKS:
        stop = mark.offset + len(mark.magic)
        if stop <= len(head):
            found = head[mark.offset : stop]
        else:
            found = device.read_at(mark.offset, len(mark.magic))
        if found == mark.magic:
            return mark.meaning
    return _unreadable("a member of a ZFS pool") if _is_zfs(device) else ""


def is_blank(device: Device) -> bool:
    """True when the beginning of `device`, where every mark would be, is zeros."""
    head = device.read_at(0, 1 << 20)
    return head.count(0) == len(head)


def _is_zfs(device: Device) -> bool:
    for label in ZFS_LABELS:
        blocks = device.read_at(label + ZFS_UBERBLOCKS, 128 << 10)
        found = sum(blocks[at : at + 8] in ZFS_MAGICS for at in range(0, len(blocks), 1024))
        if found > 1:  # one alone could be anything
            return True
    return False

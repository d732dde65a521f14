"""What a member of a Linux software RAID (MD) says of itself and of its array.

Four formats are in use: 0.90 and 1.0 lie at the end of a member, 1.1 at its beginning, and 1.2
4 KiB behind that. All say the same, so one tuple holds them.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from backgate.fs.volume import Device
from backgate.fs.volumes.mbr import entries

SECTOR = 512  # bytes
MAGIC = 0xA92B4EFC
ALL = (1 << 64) - 1  # a position that stands for "to the end"

ONE = struct.Struct("<III4x16s32sQiIQII4xi8xQi12x")  # what the array is; 128 bytes
ONE_MEMBER = struct.Struct("<QQQQI4x16sBBHi")  # what this member is; from byte 128
ONE_STATE = struct.Struct("<QQQII")  # what changes; from byte 192
MEMBER_AT, STATE_AT, CHECKSUM_AT, ROLES_AT = 128, 192, 216, 256
ROLES_MAX = 1920  # members of an array, as many as a superblock of 4 KiB can name
RECOVERING, RESHAPING, BAD_BLOCKS, REPLACEMENT, JOURNAL = 2, 4, 8, 16, 512  # feature bits
RAID0_LAYOUT = 4096  # the feature that says which of two orders a RAID 0 of uneven members has
LATER = 1  # flag of a member: it may be written some time after the others ("write-mostly")
SPARE = 0xFF00  # roles from here on are no slot: spare, faulty, journal

OLD_SIZE = 4096  # bytes of the superblock 0.90
OLD_RESERVED = 64 << 10  # bytes at the end of a member, in whole ones of these
OLD_WORDS = struct.Struct("<1024I")
OLD_MEMBERS = 27
OLD_SYNC, OLD_FAULTY, OLD_LATER = 4, 1, 512  # state bits of a member
OLD_CLEAN = 1  # state bit of an array


class Superblock(NamedTuple):
    """Sizes and offsets in bytes."""

    array: str  # the array's UUID, as mdadm(8) shows it
    name: str  # "host:name", "" in the format 0.90
    version: str
    level: int
    layout: int
    chunk: int
    members: int  # how many slots the array has
    used: int  # of each member, where the level wants the same of all
    start: int  # of the data on this member
    size: int  # of the data on this member
    events: int
    number: int  # of this member in `roles`
    roles: Sequence[int]  # the slot of each member; SPARE and more: none
    is_clean: bool
    is_later: bool  # this member may be written after the others, of a mirror
    problem: str  # why this member, or its array, cannot be read


def superblock(device: Device) -> Superblock | None:
    """Return the superblock of `device`, None when it has none whose checksum holds."""
    end = device.size // SECTOR
    for version, sector in (("1.2", 8), ("1.1", 0), ("1.0", (end - 16) & ~7)):
        found = _one(device, sector, version)
        if found is not None:
            return found
    return _old(device)


def _one(device: Device, sector: int, version: str) -> Superblock | None:
    raw = device.read_at(sector * SECTOR, 4096) if sector >= 0 else b""
    if len(raw) < 1024 or raw[:8] != struct.pack("<II", MAGIC, 1):
        return None
    _, _, features, array, name, _, level, layout, used, chunk, members, _, _, _ = ONE.unpack_from(
        raw
    )
    start, size, own, recovery, number, _, flags, _, log_size, log_at = ONE_MEMBER.unpack_from(
        raw, MEMBER_AT
    )
    _, events, resync, checksum, count = ONE_STATE.unpack_from(raw, STATE_AT)
    whole = raw[: ROLES_AT + 2 * count]
    if own != sector or count > ROLES_MAX or _sum(whole, CHECKSUM_AT) != checksum:
        return None
    return Superblock(
        array=":".join(array[at : at + 4].hex() for at in range(0, 16, 4)),
        name=name.split(b"\0")[0].decode("utf-8", "replace"),
        version=version,
        level=level,
        layout=layout if level or features & RAID0_LAYOUT else 0,
        chunk=chunk * SECTOR,
        members=members,
        used=used * SECTOR,
        start=start * SECTOR,
        size=size * SECTOR,
        events=events,
        number=number,
        roles=struct.unpack_from(f"<{count}H", raw, ROLES_AT),
        is_clean=resync == ALL,
        is_later=bool(flags & LATER),
        problem=_problem(device, features, recovery, (sector + log_at, log_size)),
    )


def _problem(device: Device, features: int, recovery: int, log: tuple[int, int]) -> str:
    """Return why a member with these features does not have every byte, "" when it has."""
    if features & RESHAPING:
        return "it is being reshaped, which is not supported"
    if features & JOURNAL:
        return "a journal in front of a RAID is not supported"
    if features & RECOVERING and recovery != ALL:
        return "its recovery has not ended"
    if features & REPLACEMENT:
        return "it is the replacement of a member, not yet complete"
    if features & BAD_BLOCKS and _has_bad(device, *log):
        return "it has blocks that are known to be bad"
    return ""


def _has_bad(device: Device, sector: int, sectors: int) -> bool:
    """True when the list of bad blocks has an entry; ones end it."""
    raw = device.read_at(max(sector, 0) * SECTOR, min(sectors, 8) * SECTOR)
    return len(raw) >= 8 and raw[:8] != b"\xff" * 8 and any(raw[:8])


def _old(device: Device) -> Superblock | None:
    at = device.size // OLD_RESERVED * OLD_RESERVED - OLD_RESERVED
    raw = device.read_at(at, OLD_SIZE) if at >= 0 else b""
    if len(raw) < OLD_SIZE or raw[:8] != struct.pack("<II", MAGIC, 0):
        return None
    words = OLD_WORDS.unpack(raw)
    if _sum(raw, 4 * 38) != words[38] or _is_of_a_partition(device, at):
        return None
    level = words[7] - (1 << 32) if words[7] >> 31 else words[7]
    rows = [words[row : row + 5] for row in range(128, 128 + 32 * OLD_MEMBERS, 32)]
    in_sync = [bool(row[4] & OLD_SYNC and not row[4] & OLD_FAULTY) for row in rows]
    return Superblock(
        array=":".join(f"{word:08x}" for word in (words[5], *words[13:16])),
        name="",
        version="0.90",
        level=level,
        layout=words[64],
        chunk=words[65],
        members=words[10],
        used=words[8] << 10,
        start=0,
        size=at,
        events=words[40] << 32 | words[39],
        number=words[992],
        roles=[row[3] if fit else SPARE for row, fit in zip(rows, in_sync, strict=True)],
        is_clean=bool(words[33] & OLD_CLEAN) and words[43] in (0, 0xFFFF_FFFF),
        is_later=bool(words[992 + 4] & OLD_LATER),
        problem="it is being reshaped, which is not supported" if words[2] > 90 else "",
    )


def _is_of_a_partition(disk: Device, at: int) -> bool:
    """True when `at` lies in a partition: the end of the last one may be where a disk's end is."""
    return any(
        entry.first * SECTOR <= at < (entry.first + entry.sectors) * SECTOR
        for entry in entries(disk.read_at(0, SECTOR)) or []
    )


def _sum(raw: bytes, at: int) -> int:
    """Return MD's checksum of `raw`, which has its own at `at`."""
    raw = raw[:at] + bytes(4) + raw[at + 4 :]
    total: int = sum(struct.unpack_from(f"<{len(raw) // 4}I", raw))
    if len(raw) % 4:
        total += int.from_bytes(raw[-2:], "little")
    return (total & 0xFFFF_FFFF) + (total >> 32) & 0xFFFF_FFFF

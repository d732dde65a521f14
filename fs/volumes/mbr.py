"""The partition table of a DOS disk: four primary partitions, and a chain of logical ones.

The logical partitions stand in a list that is linked through the extended partition by tables of
their own. A list that does not end, or leads outside, ends what is shown, not what was shown.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from backgate.fs.volume import Device, Layer, Volume
from backgate.fs.volumes.devices import Stretch
from backgate.fs.volumes.names import file_name
from backgate.fs.volumes.partition_types import EXTENDED, PROTECTIVE, mbr_type
from backgate.gateway.errors import Damaged

SECTOR = 512  # bytes; a table tells no other size, and every virtual disk with an MBR has this one
TABLE = 446  # where the four entries of 16 bytes begin
ENTRIES = 4
ENTRY = struct.Struct("<B3xB3xII")  # status, type, first sector, sectors
SIGNATURE = b"\x55\xaa"  # the last two bytes of a table
FIRST_LOGICAL = 5  # the number of the first logical partition, however few primary ones there are
LOGICAL_MAX = 256  # logical partitions; Linux takes 60, Windows no more than letters
BEYOND = "the disk ends before it begins"  # a partition of an image that is cut off
BOOT_SECTORS = {  # offset -> what a file system has there, in a sector that ends as a table does
    3: (b"NTFS    ", b"EXFAT   ", b"-FVE-FS-", b"ReFS\0\0\0\0"),
    54: (b"FAT12   ", b"FAT16   ", b"FAT     "),
    82: (b"FAT32   ",),
}


class Entry(NamedTuple):
    """One used line of a table; in sectors, counted from where the table counts."""

    place: int  # 0 to 3
    is_active: bool
    type: int
    first: int
    sectors: int


def entries(sector: bytes) -> list[Entry] | None:
    """Return the used lines of the table in `sector`, None when there is no table in it."""
    if len(sector) < SECTOR or sector[-2:] != SIGNATURE or is_boot_sector(sector):
        return None
    found = []
    for index in range(ENTRIES):
        status, kind, first, count = ENTRY.unpack_from(sector, TABLE + index * ENTRY.size)
        if status & 0x7F:
            return None  # a flag that no tool sets: boot code, not a table
        if kind and count:
            found.append(Entry(index, status == 0x80, kind, first, count))
    return found


def is_boot_sector(sector: bytes) -> bool:
    """True when `sector` is the first of a file system that ends its boot code as a table does."""
    return any(
        sector.startswith(mark, offset) for offset, marks in BOOT_SECTORS.items() for mark in marks
    )


class Mbr(Layer):
    """Partitions by an MBR that stands for itself, not in front of a GPT."""

    name: ClassVar[str] = "mbr"
    divides: ClassVar[bool] = True

    def claims(self, device: Device) -> bool:
        table = entries(device.read_at(0, SECTOR))
        if not table or any(entry.type == PROTECTIVE for entry in table):
            return False
        inside = [entry.first * SECTOR < device.size for entry in table]
        return any(inside) and all(entry.first > 0 for entry in table)

    def volumes(self, members: Sequence[Volume], secrets: Sequence[bytes]) -> list[Volume]:
        disk = members[0].device
        found = []
        for entry in entries(disk.read_at(0, SECTOR)) or []:
            if entry.type in EXTENDED:
                found += _logical(disk, entry)
            else:
                found.append(_partition(disk, entry.place + 1, entry))
        return sorted(found, key=lambda volume: int(volume.notes["number"]))


def _logical(disk: Device, extended: Entry) -> list[Volume]:
    found = []
    problem = ""
    try:
        for number, entry in enumerate(_chain(disk, extended.first), FIRST_LOGICAL):
            found.append(_partition(disk, number, entry))
    except Damaged as error:
        problem = f"the list of logical partitions is damaged: {error}"
    if problem:
        found.append(_partition(disk, extended.place + 1, extended, problem))
    return found


def _chain(disk: Device, start: int) -> Iterator[Entry]:
    """Yield the logical partitions, in sectors of `disk`; `Damaged` where their list ends badly."""
    table = start
    seen: set[int] = set()
    while len(seen) < LOGICAL_MAX:
        seen.add(table)
        lines = entries(disk.read_at(table * SECTOR, SECTOR))
        if lines is None:
            raise Damaged(
                "extended partition", table * SECTOR, "no partition table where one is due"
            )
        following = None
        for line in lines[:2]:
            if line.type not in EXTENDED:
                yield line._replace(first=table + line.first)
            elif following is None:
                following = start + line.first
        if following is None:
            return
        if following in seen:
            raise Damaged("extended partition", table * SECTOR, "its tables lead round in a circle")
        table = following
    raise Damaged("extended partition", table * SECTOR, f"more than {LOGICAL_MAX} tables")


def _partition(disk: Device, number: int, entry: Entry, problem: str = "") -> Volume:
    words = mbr_type(entry.type)
    start, size = entry.first * SECTOR, entry.sectors * SECTOR
    notes = {
        "number": str(number),
        "type": words,
        "start": f"{start} bytes",
    }
    if entry.is_active:
        notes["active"] = "yes"
    if start >= disk.size:
        problem = problem or BEYOND
    elif start + size > disk.size:
        notes["cut"] = f"the disk ends {start + size - disk.size} bytes before the partition does"
    return Volume(
        name=file_name(f"{number}-{words}"),
        device=Stretch(disk, start, size),
        kind="partition",
        label=words,
        notes=notes,
        problem=problem,
    )

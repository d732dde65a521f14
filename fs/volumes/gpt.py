"""The GUID partition table, by its first copy or, where that one is damaged, by its second.

A copy counts only when its own checksum and that of its entries hold.
"""

import struct
import uuid
import zlib
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from backgate.fs.volume import Device, Layer, Volume
from backgate.fs.volumes.devices import Stretch
from backgate.fs.volumes.mbr import BEYOND, SECTOR, entries, is_boot_sector
from backgate.fs.volumes.names import file_name
from backgate.fs.volumes.partition_types import PROTECTIVE, gpt_type
from backgate.fs.volumes.reading import read_exactly
from backgate.gateway.errors import Damaged

MARK = b"EFI PART"
SECTOR_SIZES = (512, 4096)  # bytes; what disks have
HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")  # UEFI specification, table 5-5
ENTRY = struct.Struct("<16s16sQQQ72s")  # table 5-6
CHECKSUM = 16  # where a header's own checksum stands; counted as zeros
ENTRY_MAX = 4096  # bytes of an entry; the specification allows 128 * 2**n, tools write 128
ENTRIES_MAX = 1024  # tools write 128
BIOS_BOOTABLE = 1 << 2  # attribute bit
UNUSED = bytes(16)  # the type of an entry that is free


class Table(NamedTuple):
    """A whole copy of the table."""

    sector: int  # bytes
    guid: str
    rows: bytes  # its entries
    row: int  # bytes of one of them
    is_second: bool


class Gpt(Layer):
    """Partitions by GUID partition table, in sectors of 512 or 4096 bytes."""

    name: ClassVar[str] = "gpt"
    divides: ClassVar[bool] = True

    def claims(self, device: Device) -> bool:
        first = device.read_at(0, SECTOR)
        if is_boot_sector(first):
            return False
        table = entries(first)
        if table and not any(entry.type == PROTECTIVE for entry in table):
            return False  # divided anew by an MBR since, and the GPT left behind
        return any(device.read_at(at, len(MARK)) == MARK for _, at in _places(device))

    def volumes(self, members: Sequence[Volume], secrets: Sequence[bytes]) -> list[Volume]:
        disk = members[0].device
        table = _whole(disk)
        found = []
        for index in range(len(table.rows) // table.row):
            partition = _partition(disk, table, index)
            if partition is not None:
                found.append(partition)
        return found


def _places(disk: Device) -> Iterator[tuple[int, int]]:
    """Yield (sector size, offset) of where a header may stand, the first copy's place first."""
    for sector in SECTOR_SIZES:
        yield sector, sector
    ends = [disk.size]
    for entry in entries(disk.read_at(0, SECTOR)) or []:
        if entry.type == PROTECTIVE:  # a disk that has grown since still has its old end here
            ends += [(entry.first + entry.sectors) * sector for sector in SECTOR_SIZES]
    for end in ends:
        for sector in SECTOR_SIZES:
            at = end // sector * sector - sector
            if sector < at < disk.size:
                yield sector, at


def _whole(disk: Device) -> Table:
    wrong = []
    for sector, at in _places(disk):
        if disk.read_at(at, len(MARK)) == MARK:
            try:
                return _table(disk, sector, at)
            except Damaged as error:
                wrong.append(str(error))
    raise Damaged("GPT", None, "; ".join(wrong))


def _table(disk: Device, sector: int, at: int) -> Table:
    header = read_exactly(disk, at, sector, "GPT header")
    size, checksum, own_sector = _size_checksum_sector(header)
    if not HEADER.size <= size <= sector:
        raise Damaged("GPT header", at, f"says that it is {size} bytes long")
    zeroed = header[:CHECKSUM] + bytes(4) + header[CHECKSUM + 4 : size]
    if zlib.crc32(zeroed) != checksum:
        raise Damaged("GPT header", at, "its checksum is wrong")
    if own_sector * sector != at:
        raise Damaged("GPT header", at, f"says that it is sector {own_sector}")
    *_, guid, rows_at, count, row, rows_checksum = HEADER.unpack_from(header)
    if not (ENTRY.size <= row <= ENTRY_MAX and 0 < count <= ENTRIES_MAX):
        raise Damaged("GPT header", at, f"{count} entries of {row} bytes")
    rows = read_exactly(disk, rows_at * sector, count * row, "GPT entries")
    if zlib.crc32(rows) != rows_checksum:
        raise Damaged("GPT entries", rows_at * sector, "their checksum is wrong")
    return Table(sector, str(uuid.UUID(bytes_le=guid)), rows, row, at != sector)


def _size_checksum_sector(header: bytes) -> tuple[int, int, int]:
    _, _, size, checksum, _, own_sector, *_ = HEADER.unpack_from(header)
    return size, checksum, own_sector


def _partition(disk: Device, table: Table, index: int) -> Volume | None:
    kind, guid, first, last, attributes, name = ENTRY.unpack_from(table.rows, index * table.row)
    if kind == UNUSED:
        return None
    words = gpt_type(str(uuid.UUID(bytes_le=kind)))
    label = name.decode("utf-16-le", "replace").split("\0")[0]
    start, stop = first * table.sector, (last + 1) * table.sector
    notes = {
        "number": str(index + 1),
        "type": words,
        "start": f"{start} bytes",
        "uuid": str(uuid.UUID(bytes_le=guid)),
    }
    if attributes & BIOS_BOOTABLE:
        notes["active"] = "yes"
    if table.is_second:
        notes["table"] = "the first copy of the table is damaged; the second was used"
    problem = ""
    if not 0 < start < stop:
        problem = f"the table lets it begin at sector {first} and end at sector {last}"
    elif start >= disk.size:
        problem = BEYOND
    elif stop > disk.size:
        notes["cut"] = f"the disk ends {stop - disk.size} bytes before the partition does"
    return Volume(
        name=file_name(f"{index + 1}-{label.strip() or words}"),
        device=Stretch(disk, start, 0 if problem else stop - start),
        kind="partition",
        label=label or words,
        notes=notes,
        problem=problem,
    )

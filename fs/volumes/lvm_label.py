"""What lies at the beginning of a physical volume of LVM2: its label, and the group's metadata."""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from backgate.fs.volume import Device
from backgate.fs.volumes.lvm_text import TEXT_MAX
from backgate.fs.volumes.reading import read_exactly
from backgate.gateway.errors import Damaged

SECTOR = 512  # bytes
LABEL_SECTORS = 4  # pvcreate(8) may put the label into any of the first four
LABEL = struct.Struct("<8sQII8s")  # mark, own sector, checksum, where the PV header is, type
MARK, TYPE = b"LABELONE", b"LVM2 001"
CHECKED_FROM = 20  # the checksum of a label is of what follows it in its sector
UUID = 32  # characters, without the hyphens of how it is shown
UUID_GROUPS = (6, 4, 4, 4, 4, 4, 6)
AREA = struct.Struct("<QQ")  # offset and size in bytes; zeros end a list of them
METADATA = struct.Struct("<I16sIQQ")  # checksum, mark, version, own offset, size
METADATA_MARK = b" LVM2 x[5A%r0N*>"
LOCATION_AT = 40
LOCATION = struct.Struct("<QQII")  # offset in the area, size, checksum of the text, flags
IGNORED = 1  # the flag of an area that pvchange(8) has set aside


class Physical(NamedTuple):
    """One physical volume; without `texts` another one of its group has to tell the metadata."""

    uuid: str
    texts: tuple[str, ...]  # of each of its areas that has one; they may be of different age
    problem: str  # why its metadata cannot be read


def is_physical(device: Device) -> bool:
    """True when `device` has the label of a physical volume."""
    head = device.read_at(0, LABEL_SECTORS * SECTOR)
    return any(
        head.startswith(MARK, at) and head.startswith(TYPE, at + 24)
        for at in range(0, len(head), SECTOR)
    )


def physical(device: Device) -> Physical:
    """Return what `device` says of itself; `Damaged` when its label is not whole."""
    at, sector = _label(device)
    uuid, areas = _header(sector, LABEL.unpack_from(sector)[3], at)
    texts, wrong = [], []
    for offset, size in areas:
        try:
            text = _text(device, offset, size)
        except Damaged as error:
            wrong.append(str(error))
        else:
            texts += [text] if text else []
    return Physical(uuid, tuple(texts), "" if texts else "; ".join(wrong))


def checksum(data: bytes) -> int:
    """Return LVM's own: a CRC-32 that begins with another value and is not inverted at the end."""
    return zlib.crc32(data, 0xF597_A6CF ^ 0xFFFF_FFFF) ^ 0xFFFF_FFFF


def _label(device: Device) -> tuple[int, bytes]:
    wrong = Damaged("LVM label", 0, "there is none")
    for at in range(0, LABEL_SECTORS * SECTOR, SECTOR):
        sector = device.read_at(at, SECTOR)
        if not (sector.startswith(MARK) and sector.startswith(TYPE, 24) and len(sector) == SECTOR):
            continue
        if checksum(sector[CHECKED_FROM:]) == LABEL.unpack_from(sector)[2]:
            return at, sector
        wrong = Damaged("LVM label", at, "its checksum is wrong")
    raise wrong


def _header(sector: bytes, start: int, label_at: int) -> tuple[str, list[tuple[int, int]]]:
    """Return the UUID, and where metadata may be: the second of two lists of areas."""
    if start + UUID + 8 > SECTOR:
        raise Damaged("LVM label", label_at, f"its header is said to begin at {start}")
    letters = sector[start : start + UUID].decode("ascii", "replace")
    lists: list[list[tuple[int, int]]] = [[]]
    for at in range(start + UUID + 8, SECTOR - AREA.size + 1, AREA.size):
        offset, size = AREA.unpack_from(sector, at)
        if (offset, size) != (0, 0):
            lists[-1].append((offset, size))
        elif len(lists) == 2:
            return _hyphenated(letters), lists[1]
        else:
            lists.append([])
    raise Damaged("LVM label", label_at, "its lists of areas do not end")


def _hyphenated(letters: str) -> str:
    return "-".join(_groups(letters))


def _groups(letters: str) -> Iterator[str]:
    at = 0
    for length in UUID_GROUPS:
        yield letters[at : at + length]
        at += length


def _text(device: Device, offset: int, size: int) -> str:
    """Return the text in the metadata area at `offset`, "" when the area holds none."""
    header = read_exactly(device, offset, SECTOR, "LVM metadata area")
    wanted, mark, version, own, own_size = METADATA.unpack_from(header)
    if mark != METADATA_MARK or version != 1 or (own, own_size) != (offset, size):
        raise Damaged("LVM metadata area", offset, "its header is not one")
    if checksum(header[4:]) != wanted:
        raise Damaged("LVM metadata area", offset, "its checksum is wrong")
    start, length, text_checksum, flags = LOCATION.unpack_from(header, LOCATION_AT)
    if not start or not length or flags & IGNORED:
        return ""
    if length > TEXT_MAX or not SECTOR <= start < size or length > size - SECTOR:
        raise Damaged("LVM metadata area", offset, f"a text of {length} bytes at {start}")
    first = min(length, size - start)  # the text may run round to the beginning of the area
    text = read_exactly(device, offset + start, first, "LVM metadata")
    if first < length:
        text += read_exactly(device, offset + SECTOR, length - first, "LVM metadata")
    if checksum(text) != text_checksum:
        raise Damaged("LVM metadata", offset + start, "its checksum is wrong")
    return text.rstrip(b"\0").decode("utf-8", "replace")

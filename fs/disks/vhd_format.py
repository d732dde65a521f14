"""The structures of the VHD format: footer and header, checked ("VHD Image Format", 1.0).

All numbers are big endian. Geometry is ignored: the current size is the size of the disk.
"""

import struct
from dataclasses import dataclass

from backgate.gateway.source import Data
from backgate.gateway.units import KIB, MIB, TIB

FOOTER = 512  # bytes
HEADER = 1024  # bytes
SECTOR = 512  # bytes
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
SIZE_MAX = 1024 * TIB  # bytes of a disk; no hypervisor that writes VHDs comes near
BLOCK_MIN, BLOCK_MAX = 4 * KIB, 64 * MIB  # bytes; 2 MiB in practice
ABSENT = 0xFFFF_FFFF  # in the block allocation table

_FOOTER = struct.Struct(">8sIIQI4sIIQQIII16s")
_HEADER = struct.Struct(">8sQQIIII16sII512s")
_FOOTER_SUM, _HEADER_SUM = slice(64, 68), slice(36, 40)
_LOCATOR = struct.Struct(">4sIIIQ")
_LOCATORS = range(576, 768, 24)  # where the eight parent locators stand
_NOWHERE = 0xFFFF_FFFF_FFFF_FFFF
_MAJOR = 16  # bits behind the major version


class BadVhd(ValueError):
    """Bytes that are no sound structure of a VHD; the caller knows where they lie."""


@dataclass(frozen=True, slots=True)
class Footer:
    """What identifies a VHD."""

    kind: int  # FIXED, DYNAMIC or DIFFERENCING
    size: int  # bytes of the disk
    header_at: int  # where the header lies in a file; no meaning in a fixed VHD
    uuid: bytes  # 16 bytes


@dataclass(frozen=True, slots=True)
class Locator:
    """One of several ways to find the parent."""

    platform: bytes  # 4 bytes: "W2ru", "MacX"
    length: int  # bytes
    at: int  # in the file


@dataclass(frozen=True, slots=True)
class Header:
    """How a dynamic or differencing VHD holds its blocks, and on top of which it was made."""

    table_at: int  # where the block allocation table lies in a file
    entries: int  # in it
    block_size: int  # bytes
    parent_uuid: bytes  # 16 bytes
    parent_name: str
    locators: tuple[Locator, ...]

    @property
    def bitmap_size(self) -> int:
        """The bytes of the sector bitmap in front of each block's data."""
        return -(-self.block_size // SECTOR // 8 // SECTOR) * SECTOR


def is_footer(data: Data) -> bool:
    """True when `data` begins like a footer."""
    return bytes(data[:8]) == b"conectix"


def parse_footer(data: Data) -> Footer:
    """Return the footer in `data`; `BadVhd` when it does not hold together."""
    raw = bytes(data[:FOOTER])
    if len(raw) < FOOTER or not is_footer(raw):
        raise BadVhd("no VHD footer")
    fields = _FOOTER.unpack_from(raw)
    version, header_at, size, kind, uuid = fields[2], fields[3], fields[9], fields[11], fields[13]
    _require_checksum(raw, _FOOTER_SUM, "footer")
    if version >> _MAJOR != 1:
        raise BadVhd(f"a footer of version {version >> _MAJOR}")
    if kind not in (FIXED, DYNAMIC, DIFFERENCING):
        raise BadVhd(f"a disk of type {kind}")
    if size > SIZE_MAX:
        raise BadVhd(f"a disk of {size} bytes is refused")
    return Footer(kind, size, header_at, uuid)


def parse_header(data: Data) -> Header:
    """Return the header in `data`; `BadVhd` when it does not hold together."""
    raw = bytes(data[:HEADER])
    if len(raw) < HEADER or raw[:8] != b"cxsparse":
        raise BadVhd("no VHD header")
    _, nowhere, table_at, version, entries, block_size, _, uuid, _, _, name = _HEADER.unpack_from(
        raw
    )
    _require_checksum(raw, _HEADER_SUM, "header")
    if version >> _MAJOR != 1 or nowhere != _NOWHERE:
        raise BadVhd("a header of an unknown version")
    if block_size & (block_size - 1) or not BLOCK_MIN <= block_size <= BLOCK_MAX:
        raise BadVhd(f"blocks of {block_size} bytes are refused")
    return Header(table_at, entries, block_size, uuid, _name(name), _locators(raw))


def _require_checksum(raw: bytes, where: slice, what: str) -> None:
    stored = int.from_bytes(raw[where], "big")
    if ~(sum(raw) - sum(raw[where])) & 0xFFFF_FFFF != stored:
        raise BadVhd(f"the {what}'s checksum is wrong")


def _name(raw: bytes) -> str:
    text = raw.decode("utf-16-be", "replace")
    return text.partition("\0")[0]


def _locators(raw: bytes) -> tuple[Locator, ...]:
    found = []
    for at in _LOCATORS:
        platform, _, length, _, data_at = _LOCATOR.unpack_from(raw, at)
        if any(platform):
            found.append(Locator(platform, length, data_at))
    return tuple(found)

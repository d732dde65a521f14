"""A volume group of LVM2 as its metadata tells it, with every value checked for its kind."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from backgate.fs.volumes.lvm_text import Section, parsed
from backgate.gateway.errors import Damaged

SECTOR = 512  # bytes; the unit of sizes in the text
SEGMENTS_MAX = 100_000  # of one volume
MISSING = "MISSING"  # the flag of a physical volume that was away while others were written


class PhysicalVolume(NamedTuple):
    """What the group knows of a member."""

    uuid: str
    device: str  # where it last was: "/dev/sdb1"
    start: int  # bytes, where its extents begin
    is_stale: bool


class Group(NamedTuple):
    """One volume group at one moment."""

    name: str
    uuid: str
    sequence: int  # grows with every change of the metadata
    extent: int  # bytes
    physical: dict[str, PhysicalVolume]  # by the name that segments use
    logical: dict[str, Section]


def group(text: str) -> Group:
    """Return the group that `text` tells; `Damaged` when there is none, or it lacks a part."""
    for name, found in parsed(text).items():
        if isinstance(found, dict) and "physical_volumes" in found:
            return _group(name, found)
    raise Damaged("LVM metadata", None, "there is no volume group in it")


def segments(volume: Section, name: str) -> Iterator[Section]:
    """Yield the segments of a logical volume, in order and without a gap."""
    count = number(volume, "segment_count", name)
    if not 0 < count <= SEGMENTS_MAX:
        raise Damaged("LVM metadata", None, f"{name} has {count} segments")
    due = 0
    for at in range(1, count + 1):
        segment = section(volume, f"segment{at}", name)
        if number(segment, "start_extent", name) != due:
            raise Damaged(
                "LVM metadata", None, f"segment {at} of {name} does not follow the others"
            )
        extents = number(segment, "extent_count", name)
        if extents < 1:
            raise Damaged("LVM metadata", None, f"segment {at} of {name} is empty")
        due += extents
        yield segment


def number(found: Section, key: str, where: str, default: int | None = None) -> int:
    """Return the number at `key`, not negative; `Damaged` when it is not one."""
    value = found.get(key, default)
    if isinstance(value, int) and 0 <= value < 1 << 63:
        return value
    raise Damaged("LVM metadata", None, f"{where}: {key} is not a number")


def word(found: Section, key: str, where: str, default: str | None = None) -> str:
    """Return the text at `key`; `Damaged` when it is not one."""
    value = found.get(key, default)
    if isinstance(value, str):
        return value
    raise Damaged("LVM metadata", None, f"{where}: {key} is not a text")


def values(found: Section, key: str, where: str) -> Sequence[int | str]:
    """Return the list at `key`; one value alone is a list too; `Damaged` when there is neither."""
    value = found.get(key)
    if isinstance(value, list):
        return value
    if isinstance(value, int | str):
        return [value]
    raise Damaged("LVM metadata", None, f"{where}: {key} is not a list")


def section(found: Section, key: str, where: str) -> Section:
    """Return the section at `key`; `Damaged` when it is not one."""
    value = found.get(key)
    if isinstance(value, dict):
        return value
    raise Damaged("LVM metadata", None, f"{where}: there is no {key}")


def _group(name: str, found: Section) -> Group:
    extent = number(found, "extent_size", name) * SECTOR
    if extent == 0:
        raise Damaged("LVM metadata", None, f"{name}: extents of 0 bytes")
    logical = section(found, "logical_volumes", name) if "logical_volumes" in found else {}
    return Group(
        name,
        word(found, "id", name),
        number(found, "seqno", name),
        extent,
        dict(_physical(section(found, "physical_volumes", name))),
        {key: value for key, value in logical.items() if isinstance(value, dict)},
    )


def _physical(found: Section) -> Iterator[tuple[str, PhysicalVolume]]:
    for name, volume in found.items():
        if isinstance(volume, dict):
            flags = values(volume, "flags", name) if "flags" in volume else []
            yield (
                name,
                PhysicalVolume(
                    word(volume, "id", name),
                    word(volume, "device", name, "unknown"),
                    number(volume, "pe_start", name) * SECTOR,
                    MISSING in flags,
                ),
            )

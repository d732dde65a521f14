"""Which objects of a Xen Orchestra repository say what, by their names alone."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from backgate.gateway.provider import ObjectInfo
from backgate.gateway.units import SECOND_NS

VM_BACKUPS = "xo-vm-backups"
CONFIG_BACKUPS = "xo-config-backups"
POOL_BACKUPS = "xo-pool-metadata-backups"
METADATA = "metadata.json"
ALIAS = ".alias.vhd"
VHD = ".vhd"

_TIME = r"(?P<time>\d{8}T\d{6}Z)"
_VM = re.compile(
    rf"(?P<where>(?:.*/)?){VM_BACKUPS}/(?P<vm>[^./][^/]*)/"
    rf"(?:{_TIME}\.(?P<kind>json|xva)|vdis/[^/]+/[^/]+/(?P<disk>[^/]+))"
)
_DISK = re.compile(rf"{_TIME}(?:\.alias)?\.vhd")
_STATE = re.compile(r"\..+\.merge\.json")
_METADATA = re.compile(
    rf"(?P<where>(?:.*/)?)(?:{CONFIG_BACKUPS}/[^/]+|{POOL_BACKUPS}/[^/]+/[^/]+)/"
    rf"{_TIME}/(?P<kind>metadata\.json|data\.json|data)"
)


@dataclass(slots=True)
class VmLayout:
    """The objects in one VM's directory that announce backups or explain their absence."""

    where: str  # the repository's prefix: "" or "dir/"
    uuid: str  # the name of its directory
    metadata: dict[str, ObjectInfo] = field(default_factory=dict)  # by time stamp
    archives: dict[str, ObjectInfo] = field(default_factory=dict)  # XVAs by time stamp
    disks: dict[str, list[ObjectInfo]] = field(default_factory=dict)  # VHDs, aliases by time stamp
    states: dict[str, list[str]] = field(default_factory=dict)  # of merges, by directory

    @property
    def directory(self) -> str:
        """The VM's directory, with the final slash."""
        return f"{self.where}{VM_BACKUPS}/{self.uuid}/"


@dataclass(slots=True)
class MetadataLayout:
    """One backup of a configuration or of a pool's metadata."""

    where: str
    directory: str  # with the final slash
    time: str
    files: dict[str, ObjectInfo] = field(default_factory=dict)  # by name

    @property
    def is_pool(self) -> bool:
        """True for a pool's metadata, False for a configuration."""
        return self.directory.startswith(f"{self.where}{POOL_BACKUPS}/")


@dataclass(slots=True)
class Layout:
    """All that the landmarks of a store announce."""

    vms: dict[str, VmLayout] = field(default_factory=dict)  # by directory
    metadata: dict[str, MetadataLayout] = field(default_factory=dict)  # by directory


def is_landmark(key: str) -> bool:
    """True for metadata of backups, XVAs, VHD files and aliases, states of merges."""
    if "xo-" not in key or "/blocks/" in key:  # most keys
        return False
    found = _VM.fullmatch(key)
    if found is None:
        return _METADATA.fullmatch(key) is not None
    disk = found["disk"]
    return disk is None or bool(_DISK.fullmatch(disk) or _STATE.fullmatch(disk))


def layout_of(landmarks: Iterable[ObjectInfo]) -> Layout:
    """Return what `landmarks` announce."""
    layout = Layout()
    for info in landmarks:
        if found := _VM.fullmatch(info.key):
            if not found["vm"].endswith(".lock"):
                _sort_in(layout, info, found)
        elif found := _METADATA.fullmatch(info.key):
            directory = info.key.removesuffix(found["kind"])
            fresh = MetadataLayout(found["where"], directory, found["time"])
            layout.metadata.setdefault(directory, fresh).files[found["kind"]] = info
    return layout


def time_ns_of(stamp: str) -> int:
    """Return the nanoseconds since 1970 of a time stamp such as 20260801T010000Z; 0: no time."""
    try:
        time = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return 0
    return int(time.timestamp()) * SECOND_NS


def stamp_of(metadata_key: str) -> str:
    """Return the time stamp in the key of a backup's metadata."""
    return metadata_key.rpartition("/")[2].partition(".")[0]


def shown_time(stamp: str) -> str:
    """Return a time stamp as a directory shows it: 2026-08-01T01-00-00Z."""
    day, clock = stamp[:8], stamp[9:15]
    return f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}-{clock[2:4]}-{clock[4:]}Z"


def stamp_in(name: str) -> str:
    """Return the time stamp that the name of a VHD or alias begins with; "" when there is none."""
    found = _DISK.fullmatch(name)
    return found["time"] if found else ""


def _sort_in(layout: Layout, info: ObjectInfo, found: "re.Match[str]") -> None:
    fresh = VmLayout(found["where"], found["vm"])
    vm = layout.vms.setdefault(fresh.directory, fresh)
    disk = found["disk"]
    if disk is None:
        (vm.metadata if found["kind"] == "json" else vm.archives)[found["time"]] = info
    elif disk.endswith(VHD):
        vm.disks.setdefault(stamp_in(disk), []).append(info)
    else:
        vm.states.setdefault(info.key.rpartition("/")[0], []).append(info.key)

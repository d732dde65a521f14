"""Where in the tree of a backup each volume is shown, and what is said where no files can be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from backgate.fs.parser.messages import VolumeFacts

DISKS, PARTITIONS, VOLUMES = b"disks", b"partitions", b"volumes"
DISK_RAW, VOLUME_RAW, README = b"disk.raw", b"volume.raw", b"README.txt"
GATHERED = {"lvm": "the volume group", "md": "the array"}  # what members of a layer make together

Place: TypeAlias = tuple[bytes, ...]  # the path of what is no file of a file system


@dataclass(frozen=True, slots=True)
class DiskReport:
    """What there is to say of one disk."""

    name: str
    size: int  # bytes
    problem: str  # why it cannot be read
    notes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class VolumeReport:
    """What there is to say of one volume."""

    path: str  # below the backup
    disks: Sequence[str]  # that it lies on
    size: int  # bytes
    kind: str
    label: str
    file_system: str
    problem: str
    notes: Mapping[str, str]  # also what a replay of the journal did


@dataclass(frozen=True, slots=True)
class Report:
    """What lies on the disks of a backup."""

    disks: Sequence[DiskReport]
    volumes: Sequence[VolumeReport]


class Layout:
    """The volumes of a backup by their place, and the names of those in each directory."""

    def __init__(
        self, disks: Sequence[bytes], volumes: Sequence[VolumeFacts], *, is_single: bool
    ) -> None:
        self.volumes: dict[Place, tuple[int, VolumeFacts]] = {}  # with their number
        self.names: dict[Place, dict[bytes, None]] = {}
        for number, facts in enumerate(volumes, len(disks)):
            place: Place = (VOLUMES,)
            if facts.disk is not None:
                place = (PARTITIONS,) if is_single else (DISKS, disks[facts.disk], PARTITIONS)
            for name in facts.path:
                self.names.setdefault(place, {})[name.encode()] = None
                place = (*place, name.encode())
            self.volumes[place] = (number, facts)


def is_below_disks(place: Place) -> bool:
    """True for what only a look at the disks can tell."""
    return VOLUMES in place[:1] or PARTITIONS in place[:1] or PARTITIONS in place[2:3]


def about_disk(name: str, problem: str) -> bytes:
    """Return what is said in place of a disk that cannot be read."""
    return f"The disk {name} cannot be read: {problem}.\n".encode()


def about_volume(facts: VolumeFacts, failure: str) -> bytes:
    """Return what is said beside `volume.raw`; `failure`: why its file system cannot be opened."""
    lines = [f"No files can be shown here: {_reason(facts, failure)}.", ""]
    lines += [f"{what}: {text}" for what, text in _facts(facts) if text]
    if facts.size:
        lines += ["", "volume.raw has its bytes as they are."]
    return ("\n".join(lines) + "\n").encode()


def _reason(facts: VolumeFacts, failure: str) -> str:
    if failure:
        return f"the {facts.file_system} file system on it cannot be opened: {failure}"
    if facts.problem:
        return facts.problem
    if facts.member_of:
        whole = GATHERED.get(facts.member_of, "the whole")
        return f"it is a part of {facts.member_of}; what {whole} holds is in volumes/"
    return "nothing that is known lies on it"


def _facts(facts: VolumeFacts) -> list[tuple[str, str]]:
    known = [("kind", facts.kind), ("label", facts.label), ("size", f"{facts.size:,} bytes")]
    return known + sorted(facts.notes.items())

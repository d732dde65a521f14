"""LVM2: volume groups over physical volumes on any disks of a backup."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

from backgate.fs.volume import Device, Layer, Volume
from backgate.fs.volumes.devices import Empty
from backgate.fs.volumes.lvm_group import Group, group, section, word
from backgate.fs.volumes.lvm_label import Physical, is_physical, physical
from backgate.fs.volumes.lvm_map import LogicalVolumes, Member
from backgate.fs.volumes.lvm_text import Section
from backgate.gateway.errors import Damaged

VISIBLE = "VISIBLE"  # the status of a volume that is there for its users, not for another volume
POOLS = ("thin-pool", "cache-pool", "vdo-pool")  # what holds volumes and is none


class Lvm(Layer):
    """Logical volumes, those of one group named after it."""

    name: ClassVar[str] = "lvm"
    gathers: ClassVar[bool] = True
    certain: ClassVar[bool] = True

    def claims(self, device: Device) -> bool:
        return is_physical(device)

    def volumes(self, members: Sequence[Volume], secrets: Sequence[bytes]) -> list[Volume]:
        found, problems = _physical(members)
        groups = _groups(found)
        if not groups:
            raise Damaged("LVM", None, "; ".join(problems) or "no physical volume has metadata")
        names = Counter(one.name for one in groups)
        volumes = []
        for one in groups:
            name = one.name if names[one.name] == 1 else f"{one.name}.{one.uuid[:6]}"
            volumes += list(_volumes(one, name, {uuid: at.member for uuid, at in found.items()}))
        return volumes


class _Found(NamedTuple):
    member: Member
    physical: Physical


def _physical(members: Sequence[Volume]) -> tuple[dict[str, _Found], list[str]]:
    """Return the physical volumes by UUID, of two copies the first; and what cannot be told."""
    found: dict[str, _Found] = {}
    problems = []
    for number, member in enumerate(members):
        try:
            one = physical(member.device)
        except Damaged as error:
            problems.append(str(error))
            continue
        if one.problem:
            problems.append(one.problem)
        found.setdefault(one.uuid, _Found(Member(number, member.device), one))
    return found, problems


def _groups(found: Mapping[str, _Found]) -> list[Group]:
    """Return each group by the newest metadata that any of its members has."""
    newest: dict[str, Group] = {}
    for one in found.values():
        if one.physical.text:
            try:
                told = group(one.physical.text)
            except Damaged:
                continue  # the others of its group tell it too; without any it is missing there
            other = newest.get(told.uuid)
            if other is None or told.sequence > other.sequence:
                newest[told.uuid] = told
    return list(newest.values())


def _volumes(found: Group, name: str, members: Mapping[str, Member]) -> Iterator[Volume]:
    logical = LogicalVolumes(found, members)
    uuids = {one.uuid for one in found.physical.values()}
    whole: Sequence[int] = [one.number for uuid, one in members.items() if uuid in uuids]
    for own, volume in found.logical.items():
        kind = _kind(volume)
        status = volume.get("status")
        is_visible = isinstance(status, list) and VISIBLE in status
        if not is_visible or kind.partition("+")[0] in POOLS:
            continue
        device: Device = Empty(0)
        problem, on = "", whole
        try:
            shown = _shown(own, volume, kind)
            device, on = logical.device(own)
        except Damaged as error:
            problem, shown = str(error), own
        yield Volume(
            name=f"{name}-{shown}",
            device=device,
            kind="lvm",
            label=shown,
            notes={
                "volume group": found.name,
                "type": kind,
                "uuid": str(volume.get("id", "")),
            },
            problem=problem,
            members=on,
        )


def _kind(volume: Section) -> str:
    """Return the type of a volume as lvs(8) tells it."""
    segment = volume.get("segment1")
    if not isinstance(segment, dict):
        return ""
    kind = str(segment.get("type", ""))
    return "linear" if kind == "striped" and segment.get("stripe_count") == 1 else kind


def _shown(own: str, volume: Section, kind: str) -> str:
    """Return the name that lvs(8) shows: a snapshot is called as its store is."""
    if kind != "snapshot":
        return own
    segment = section(volume, "segment1", own)
    return word(segment, "cow_store", own, word(segment, "merging_store", own, own))

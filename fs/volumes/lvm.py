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
UNREADABLE = "the metadata of this physical volume cannot be read: {}"
COPY = "it is a copy of another physical volume, which is used instead"


class Lvm(Layer):
    """Logical volumes, those of one group named after it."""

    name: ClassVar[str] = "lvm"
    gathers: ClassVar[bool] = True
    certain: ClassVar[bool] = True

    def claims(self, device: Device) -> bool:
        return is_physical(device)

    def volumes(self, members: Sequence[Volume], secrets: Sequence[bytes]) -> list[Volume]:
        lost: dict[int, str] = {}
        found = _physical(members, lost)
        groups = _groups(found, lost)
        names = Counter(one.name for one in groups)
        volumes = []
        for one in groups:
            name = one.name if names[one.name] == 1 else f"{one.name}.{one.uuid[:6]}"
            volumes += list(_volumes(one, name, {uuid: at.member for uuid, at in found.items()}))
        return volumes + [_lost(number, members[number], why) for number, why in lost.items()]


class _Found(NamedTuple):
    member: Member
    physical: Physical


def _physical(members: Sequence[Volume], lost: dict[int, str]) -> dict[str, _Found]:
    """Return the physical volumes by UUID, of copies the newest; why others are `lost`."""
    found: dict[str, _Found] = {}
    for number, member in enumerate(members):
        try:
            one = physical(member.device)
        except Damaged as error:
            lost[number] = UNREADABLE.format(error)
            continue
        new = _Found(Member(number, member.device), one)
        known = found.get(one.uuid)
        if known is not None:
            if _sequence(new) > _sequence(known):
                new, known = known, new
            lost[new.member.number] = COPY
        found[one.uuid] = known or new
    return found


def _sequence(found: _Found) -> int:
    """Return how new the metadata of a physical volume is, -1 when it has none."""
    try:
        return group(found.physical.text).sequence if found.physical.text else -1
    except Damaged:
        return -1


def _groups(found: Mapping[str, _Found], lost: dict[int, str]) -> list[Group]:
    """Return each group by the newest metadata that any of its members has.

    A member whose metadata cannot be read is `lost` only when no other one tells of it.
    """
    newest: dict[str, Group] = {}
    wrong: dict[str, str] = {uuid: one.physical.problem for uuid, one in found.items()}
    for uuid, one in found.items():
        if one.physical.text:
            try:
                told = group(one.physical.text)
            except Damaged as error:
                wrong[uuid] = str(error)
                continue
            other = newest.get(told.uuid)
            if other is None or told.sequence > other.sequence:
                newest[told.uuid] = told
    known = {member.uuid for one in newest.values() for member in one.physical.values()}
    for uuid, why in wrong.items():
        if why and uuid not in known:
            lost[found[uuid].member.number] = UNREADABLE.format(why)
    return list(newest.values())


def _lost(number: int, member: Volume, why: str) -> Volume:
    """Return a physical volume that is of no use to any group, with its bytes."""
    return Volume(
        name="lvm-unknown",
        device=member.device,
        kind="lvm",
        problem=why,
        members=[number],
    )


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

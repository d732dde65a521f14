"""LVM2: volume groups over physical volumes on any disks of a backup."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

from backgate.fs.volume import DOUBT, Device, Layer, Volume
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
TWICE = "a physical volume of it is there more than once, equally new: the first disk's is shown"


class Lvm(Layer):
    """Logical volumes, those of one group named after it."""

    name: ClassVar[str] = "lvm"
    gathers: ClassVar[bool] = True
    certain: ClassVar[bool] = True

    def claims(self, device: Device) -> bool:
        return is_physical(device)

    def is_beside_tables(self, device: Device) -> bool:
        return True  # pvcreate(8) takes no disk with a table, and clears it

    def volumes(self, members: Sequence[Volume], secrets: Sequence[bytes]) -> list[Volume]:
        lost: dict[int, str] = {}
        copied: set[str] = set()
        found = _physical(members, lost, copied)
        groups = _groups(found, lost)
        names = Counter(one.name for one in groups)
        present = {uuid: at.member for uuid, at in found.items()}
        twice = {present[uuid].number for uuid in copied}
        volumes = []
        for one in groups:
            name = one.name if names[one.name] == 1 else f"{one.name}.{one.uuid[:6]}"
            volumes += list(_volumes(one, name, present, twice))
        return volumes + [_lost(number, members[number], why) for number, why in lost.items()]


class _Found(NamedTuple):
    """A physical volume that was found, and the newest that it tells of its group."""

    member: Member
    group: Group | None
    problem: str  # why it tells nothing

    @property
    def sequence(self) -> int:
        """How new its metadata is, -1 when it has none."""
        return -1 if self.group is None else self.group.sequence


def _physical(
    members: Sequence[Volume], lost: dict[int, str], copied: set[str]
) -> dict[str, _Found]:
    """Return the physical volumes by UUID, of copies the newest; why others are `lost`.

    `copied` gets the UUIDs of those that are there more than once, equally new.
    """
    found: dict[str, _Found] = {}
    told: dict[str, Group | Damaged] = {}
    for number, member in enumerate(members):
        try:
            one = physical(member.device)
        except Damaged as error:
            lost[number] = UNREADABLE.format(error)
            continue
        new = _newest(Member(number, member.device), one, told)
        known = found.get(one.uuid)
        if known is not None:
            if new.sequence == known.sequence:
                copied.add(one.uuid)
            elif new.sequence > known.sequence:
                copied.discard(one.uuid)
                new, known = known, new
            lost[new.member.number] = COPY
        found[one.uuid] = known or new
    return found


def _newest(member: Member, one: Physical, told: dict[str, Group | Damaged]) -> _Found:
    """Return what a physical volume tells; `told` keeps what each text says, for the others."""
    groups, problem = [], one.problem
    for text in one.texts:
        if text not in told:
            try:
                told[text] = group(text)
            except Damaged as error:
                told[text] = error
        said = told[text]
        if isinstance(said, Damaged):
            problem = str(said)
        else:
            groups.append(said)
    return _Found(member, max(groups, key=lambda group: group.sequence, default=None), problem)


def _groups(found: Mapping[str, _Found], lost: dict[int, str]) -> list[Group]:
    """Return each group by the newest metadata that any of its members has.

    A member whose metadata cannot be read is `lost` only when no other one tells of it.
    """
    newest: dict[str, Group] = {}
    for one in found.values():
        if one.group is not None:
            other = newest.get(one.group.uuid)
            if other is None or one.group.sequence > other.sequence:
                newest[one.group.uuid] = one.group
    known = {member.uuid for told in newest.values() for member in told.physical.values()}
    for uuid, one in found.items():
        if one.group is None and one.problem and uuid not in known:
            lost[one.member.number] = UNREADABLE.format(one.problem)
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


def _volumes(
    found: Group, name: str, members: Mapping[str, Member], twice: set[int]
) -> Iterator[Volume]:
    """Yield the volumes of a group; `twice` are the members of which there is another copy."""
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
        problem, shown, on, doubt = "", own, whole, ""
        try:
            shown = _shown(own, volume, kind)
            device, on, doubt = logical.made(own)
        except Damaged as error:
            problem = str(error)
        doubts = [one for one in (doubt, TWICE if twice.intersection(on) else "") if one]
        yield Volume(
            name=f"{name}-{shown}",
            device=device,
            kind="lvm",
            label=shown,
            notes={
                "volume group": found.name,
                "type": kind,
                "uuid": str(volume.get("id", "")),
                **({DOUBT: "; ".join(doubts)} if doubts else {}),
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

"""Linux software RAID (MD): arrays over members on any disks of a backup.

A member that was away while others were written is left out; and an array is read as long as what
is left of it has every byte.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from backgate.fs.volume import DOUBT, Device, Layer, Volume
from backgate.fs.volumes.devices import Chain, Empty, Stretch
from backgate.fs.volumes.md_superblock import SPARE, Superblock, superblock
from backgate.fs.volumes.raid_layouts import Copies, Layout, Parity, Stripes
from backgate.fs.volumes.striped import CHUNK_MAX, Striped
from backgate.gateway.errors import Damaged

LAG_MAX = 1  # events; a machine may die after writing the first of all superblocks
LINEAR, STRIPES, MIRROR, COPIES = -1, 0, 1, 10  # levels
PARITIES = {4: 1, 5: 1, 6: 2}  # by level
LEVEL_4_LAYOUT = 5  # its parity is on the last member
FAR_OFFSET, FAR_SETS = 1 << 16, 0xFFFE_0000  # bits of a RAID 10's layout
ORIGINAL, ALTERNATE = 1, 2  # layouts of a RAID 0 of uneven members
MEMBERS_MAX = 1024  # the kernel takes fewer
BEHIND = "only members that may be written later than others are left: the last may be missing"


class Md(Layer):
    """One volume for each array."""

    name: ClassVar[str] = "md"
    gathers: ClassVar[bool] = True
    certain: ClassVar[bool] = True

    def claims(self, device: Device) -> bool:
        return superblock(device) is not None

    def is_beside_tables(self, device: Device) -> bool:
        told = superblock(device)  # mdadm(8) leaves the first sector, and fdisk(8) what is behind
        return told is not None and told.start > 0

    def volumes(self, members: Sequence[Volume], secrets: Sequence[bytes]) -> list[Volume]:
        arrays: dict[str, list[_Member]] = {}
        for number, member in enumerate(members):
            told = superblock(member.device)
            if told is not None:
                arrays.setdefault(told.array, []).append(_Member(number, member.device, told))
        return [_volume(array, found) for array, found in arrays.items()]


class _Member(NamedTuple):
    number: int  # among the layer's members
    device: Device
    told: Superblock

    def data(self, size: int) -> Device:
        """Return the first `size` bytes of its data."""
        data = Stretch(self.device, self.told.start, size)
        if data.size < size:
            raise Damaged("RAID", None, f"member {self.told.number} is cut short")
        return data

    def is_short(self, array: Superblock) -> bool:
        """True when it ends before what a level that can do without it wants of each member."""
        wants = 0 if array.level in (LINEAR, STRIPES) else array.used
        return self.told.start + wants > self.device.size


class _Array(NamedTuple):
    told: Superblock  # by the newest member
    slots: list[_Member | None]


def _volume(uuid: str, found: list[_Member]) -> Volume:
    newest = max(found, key=lambda member: member.told.events).told
    label = newest.name.split(":")[-1] or uuid.split(":")[0]
    notes = {
        "uuid": uuid,
        "name": newest.name,
        "level": "linear" if newest.level == LINEAR else f"RAID {newest.level}",
        "metadata": newest.version,
    }
    device: Device = Empty(0)
    problem, on = "", [member.number for member in found]
    try:
        array, left_out = _array(newest, found)
        if left_out:
            notes["left out"] = "; ".join(left_out)
        if not any(array.slots):
            reasons = dict.fromkeys(one.partition(": ")[2] for one in left_out)
            raise Damaged("RAID", None, f"no member can be used: {'; '.join(reasons)}")
        device = _device(array)
        if newest.level == MIRROR and not newest.is_clean and _are_later(array.slots):
            notes[DOUBT] = BEHIND
        on = [member.number for member in array.slots if member is not None]
    except Damaged as error:
        problem = str(error)
    return Volume(
        name=f"md-{label}",
        device=device,
        kind="md",
        label=label,
        notes=notes,
        problem=problem,
        members=on,
    )


def _array(newest: Superblock, found: list[_Member]) -> tuple[_Array, list[str]]:
    """Return the members in their slots, and why others are not in theirs."""
    if not 0 < newest.members <= MEMBERS_MAX:
        raise Damaged("RAID", None, f"{newest.members} members")
    slots: list[_Member | None] = [None] * newest.members
    left_out = []
    for member in sorted(found, key=lambda member: -member.told.events):
        told = member.told
        roles = newest.roles
        slot = roles[told.number] if told.number < len(roles) else SPARE
        why = told.problem
        if told.events + LAG_MAX < newest.events:
            why = f"it was away while others were written ({newest.events - told.events} events)"
        elif slot >= newest.members:
            why = why or "the array does not count it in"
        elif slots[slot] is not None:
            why = why or "another is its copy"
        elif member.is_short(newest):
            why = why or "it is cut short"
        if why:
            left_out.append(f"member {told.number}: {why}")
        else:
            slots[slot] = member
    return _Array(newest, slots), left_out


def _device(array: _Array) -> Device:
    told = array.told
    missing = [number for number, member in enumerate(array.slots) if member is None]
    names = ", ".join(map(str, missing))
    if told.level in (LINEAR, STRIPES):
        if missing:
            raise Damaged("RAID", None, f"of {told.members} members number {names} cannot be used")
        whole = [member for member in array.slots if member is not None]
        return _linear(whole) if told.level == LINEAR else _stripes(told, whole)
    if told.level == MIRROR:
        return _mirror(told, array.slots)
    if not 0 < told.chunk <= CHUNK_MAX:
        raise Damaged("RAID", None, f"chunks of {told.chunk} bytes")
    rows = told.used // told.chunk
    layout, size = _layout(told, rows)
    if missing and layout.others(0) and not told.is_clean:
        why = f"number {names} cannot be used, and the parity of the others is not complete"
        raise Damaged("RAID", None, why)
    used = rows * told.chunk
    parts = [None if member is None else member.data(used) for member in array.slots]
    return Striped(parts, told.chunk, layout, size)


def _are_later(slots: Sequence[_Member | None]) -> bool:
    return all(member.told.is_later for member in slots if member is not None)


def _mirror(told: Superblock, slots: Sequence[_Member | None]) -> Device:
    there = [member for member in slots if member is not None]
    if not there:
        raise Damaged("RAID", None, "none of its members can be used")
    return min(there, key=lambda member: member.told.is_later).data(told.used)


def _layout(told: Superblock, rows: int) -> tuple[Layout, int]:
    """Return the layout, and the size of the array, for members of `rows` chunks each."""
    count = told.members
    parities = PARITIES.get(told.level)
    if parities is not None:
        algorithm = LEVEL_4_LAYOUT if told.level == 4 else told.layout
        return Parity(count, parities, algorithm), rows * (count - parities) * told.chunk
    if told.level != COPIES or told.layout & FAR_SETS:
        kind = f"level {told.level} with layout {told.layout:#x}"
        raise Damaged("RAID", None, f"{kind} is not supported")
    near, far = told.layout & 0xFF, told.layout >> 8 & 0xFF
    if not near or not far:
        raise Damaged("RAID", None, f"{near} near and {far} far copies")
    chunks = rows // far * count // near
    stride = 0 if told.layout & FAR_OFFSET or far == 1 else -(-chunks * near * far // count) // far
    return Copies(count, near, far, stride), chunks * told.chunk


def _linear(members: Sequence[_Member]) -> Device:
    parts = []
    for member in members:
        chunk = member.told.chunk or 1
        parts.append(member.data(member.told.size // chunk * chunk))
    return Chain(parts)


def _stripes(told: Superblock, members: Sequence[_Member]) -> Device:
    """Return a RAID 0: where members are uneven, the rest of the larger ones is striped again."""
    if not 0 < told.chunk <= CHUNK_MAX:
        raise Damaged("RAID", None, f"chunks of {told.chunk} bytes")
    sizes = [member.told.size // told.chunk * told.chunk for member in members]
    ends = sorted(set(sizes))
    if len(ends) > 1 and told.layout not in (ORIGINAL, ALTERNATE):
        raise Damaged("RAID", None, "uneven members, in an order that is not recorded")
    zones: list[Device] = []
    start = chunks = 0
    for end in ends:
        inside = [member for member, size in zip(members, sizes, strict=True) if size >= end]
        turn = chunks % len(inside) if told.layout == ORIGINAL else 0
        inside = inside[turn:] + inside[:turn]
        parts = [Stretch(member.data(end), start, end - start) for member in inside]
        size = len(parts) * (end - start)
        zones.append(Striped(parts, told.chunk, Stripes(len(parts)), size))
        start, chunks = end, chunks + size // told.chunk
    return Chain(zones)

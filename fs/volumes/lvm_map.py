"""The logical volumes of one group as devices: each segment over members, or over other volumes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from backgate.fs.volume import Device
from backgate.fs.volumes import raid_layouts as layouts
from backgate.fs.volumes.cow import CHANGED_ALL, Snapshot
from backgate.fs.volumes.devices import Chain, Empty, Stretch
from backgate.fs.volumes.dm_raid import doubts, trusted, was_synchronized
from backgate.fs.volumes.lvm_group import (
    SECTOR,
    Group,
    number,
    section,
    segments,
    values,
    word,
)
from backgate.fs.volumes.lvm_text import Section
from backgate.fs.volumes.raid_layouts import Copies, Layout, Parity, Stripes
from backgate.fs.volumes.striped import Striped
from backgate.fs.volumes.thin import Pool, Thin
from backgate.gateway.errors import Damaged

DEPTH_MAX = 12  # volumes one over another: a thin volume over a cached RAID's images needs six
RAIDS = {  # LVM's words for the kernel's layouts: (parities, algorithm)
    "raid4": (1, layouts.PARITY_FIRST),
    "raid5": (1, layouts.LEFT_SYMMETRIC),
    "raid5_ls": (1, layouts.LEFT_SYMMETRIC),
    "raid5_la": (1, layouts.LEFT_ASYMMETRIC),
    "raid5_rs": (1, layouts.RIGHT_SYMMETRIC),
    "raid5_ra": (1, layouts.RIGHT_ASYMMETRIC),
    "raid5_n": (1, layouts.PARITY_LAST),
    "raid6": (2, layouts.ZERO_RESTART),
    "raid6_zr": (2, layouts.ZERO_RESTART),
    "raid6_nr": (2, layouts.N_RESTART),
    "raid6_nc": (2, layouts.N_CONTINUE),
    "raid6_ls_6": (2, layouts.SINGLE_AND_LAST + layouts.LEFT_SYMMETRIC),
    "raid6_la_6": (2, layouts.SINGLE_AND_LAST + layouts.LEFT_ASYMMETRIC),
    "raid6_rs_6": (2, layouts.SINGLE_AND_LAST + layouts.RIGHT_SYMMETRIC),
    "raid6_ra_6": (2, layouts.SINGLE_AND_LAST + layouts.RIGHT_ASYMMETRIC),
    "raid6_n_6": (2, layouts.PARITY_LAST),
}
MOVED = "PVMOVE"  # the status of what is being moved from the first leg of a mirror to the others
BEHIND = "the first leg of a mirror is missing, and the one that is shown may have lacked something"
UNCHECKED = "its thin pool says that it has to be checked"
OTHER_TIMES = "its thin pool and the group's metadata are of different times: it may be another"
SAFE_CACHES = ("writethrough", "passthrough")  # modes in which the origin has every write


class Member(NamedTuple):
    """A physical volume that was found: which of the layer's members, and its bytes."""

    number: int
    device: Device


class _Images(NamedTuple):
    """The members of a RAID; None is missing, or does not have every write."""

    devices: Sequence[Device | None]
    headers: Sequence[Device | None]  # with their superblocks
    why: str  # one of them is missing, to be added to what that means


class Made(NamedTuple):
    """A logical volume that was made."""

    device: Device
    members: Sequence[int]  # that it lies on
    doubt: str  # why not all of it may be there, "" when it surely is


class LogicalVolumes:
    """Devices of one group's volumes by name, made when they are asked for."""

    def __init__(self, group: Group, members: Mapping[str, Member]) -> None:
        """Let `members` be what was found, by UUID."""
        self._group, self._members = group, members
        self._pools: dict[str, tuple[Pool, set[int], str]] = {}  # with members, and a doubt
        self._room = CHANGED_ALL  # chunks that snapshots may have changed
        self._merged = set(_merged(group.logical.values()))
        self._depth = 0
        self._used: set[int] = set()
        self._doubt = ""
        self._types: dict[str, Callable[[str, Section], Device]] = {
            "striped": self._striped,
            "linear": self._striped,
            "mirror": self._mirror,
            "raid0": self._raid0,
            "raid0_meta": self._raid0,
            "raid1": self._raid1,
            "raid10": self._raid10,
            "raid10_near": self._raid10,
            **dict.fromkeys(RAIDS, self._parity),
            "thin": self._thin,
            "cache": self._cached,
            "snapshot": self._snapshot,
            "zero": lambda name, segment: Empty(self._size(name, segment)),
        }

    def made(self, name: str) -> Made:
        """Return the volume `name`.

        Raises `Damaged` when a member is missing, or a kind of volume is not supported.
        """
        self._used, self._doubt = set(), ""
        device = self._device(name)
        return Made(device, sorted(self._used), self._doubt)

    def _device(self, name: str) -> Device:
        volume = self._group.logical.get(name)
        if volume is None:
            raise Damaged("LVM metadata", None, f"there is no volume {name}")
        if name in self._merged:
            raise Damaged("LVM", None, f"a snapshot is being merged into {name}: not supported")
        if self._depth >= DEPTH_MAX:
            raise Damaged("LVM metadata", None, f"{name} lies over more than {DEPTH_MAX} others")
        self._depth += 1
        try:
            parts = [self._segment(name, segment) for segment in segments(volume, name)]
        finally:
            self._depth -= 1
        return parts[0] if len(parts) == 1 else Chain(parts)

    def _segment(self, name: str, segment: Section) -> Device:
        kind = word(segment, "type", name).partition("+")[0]  # "cache+CACHE_USES_CACHEVOL"
        make = self._types.get(kind)
        if make is None:
            raise Damaged("LVM", None, f"volumes of the type {kind!r} are not supported")
        if "data_offset" in segment or "reshape_count" in segment:
            raise Damaged("LVM", None, f"{name} is being, or was, reshaped, which is not supported")
        return make(name, segment)

    def _size(self, name: str, segment: Section) -> int:
        return number(segment, "extent_count", name) * self._group.extent

    def _striped(self, name: str, segment: Section) -> Device:
        areas = _pairs(values(segment, "stripes", name), name)
        size = self._size(name, segment)
        if len(areas) == 1:
            return self._area(*areas[0], size)
        if size % len(areas):
            raise Damaged("LVM metadata", None, f"{name} is not divided evenly by its stripes")
        parts = [self._area(area, start, size // len(areas)) for area, start in areas]
        chunk = number(segment, "stripe_size", name) * SECTOR
        return Striped(parts, chunk, Stripes(len(parts)), size)

    def _area(self, name: str, start: int | str, size: int) -> Device:
        """Return `size` bytes from extent `start` of a physical or a logical volume."""
        if not isinstance(start, int) or start < 0:
            raise Damaged("LVM metadata", None, f"{start!r} is no extent of {name}")
        under, first = self._under(name)
        part = Stretch(under, first + start * self._group.extent, size)
        if part.size < size:
            raise Damaged("LVM", None, f"{name} ends before its last extent")
        return part

    def _under(self, name: str) -> tuple[Device, int]:
        physical = self._group.physical.get(name)
        if physical is None:
            return self._device(name), 0
        member = self._members.get(physical.uuid)
        if member is None or physical.is_stale:
            why = "is missing" if member is None else "was away while others were written"
            raise Damaged(
                f"volume group {self._group.name}",
                None,
                f"its physical volume {physical.uuid} (last seen as {physical.device}) {why}",
            )
        self._used.add(member.number)
        return member.device, physical.start

    def _mirror(self, name: str, segment: Section) -> Device:
        size = self._size(name, segment)
        first, *others = _pairs(values(segment, "mirrors", name), name)
        try:
            return self._area(*first, size)  # what the others are copied from
        except Damaged as error:
            wrong = error
        status = self._group.logical[name].get("status")
        is_moved = isinstance(status, list) and MOVED in status
        for leg in [] if is_moved else others:
            with suppress(Damaged):
                device = self._area(*leg, size)
                self._doubt = BEHIND
                return device
        raise wrong

    def _raid0(self, name: str, segment: Section) -> Device:
        if "raid0_lvs" in segment:
            images = [str(image) for image in values(segment, "raid0_lvs", name)]
        else:
            images = [image for _, image in _raids(segment, name)]
        chunk = number(segment, "stripe_size", name) * SECTOR
        parts = [self._device(image) for image in images]
        return Striped(parts, chunk, Stripes(len(parts)), self._size(name, segment))

    def _raid1(self, name: str, segment: Section) -> Device:
        images = self._images(name, segment)
        for image in images.devices:
            if image is not None:
                return _exactly(image, self._size(name, segment), name)
        raise Damaged("RAID", None, f"all members are missing{images.why}")

    def _raid10(self, name: str, segment: Section) -> Device:
        images = self._images(name, segment)
        near = number(segment, "data_copies", name, 2)
        return self._raid(name, segment, images, Copies(len(images.devices), near, 1, 0))

    def _parity(self, name: str, segment: Section) -> Device:
        images = self._images(name, segment)
        kind = word(segment, "type", name).partition("+")[0]
        return self._raid(name, segment, images, Parity(len(images.devices), *RAIDS[kind]))

    def _raid(self, name: str, segment: Section, images: _Images, layout: Layout) -> Device:
        chunk = number(segment, "stripe_size", name) * SECTOR
        size = self._size(name, segment)
        try:
            unsure = doubts(images.headers) if None in images.devices and layout.others(0) else []
            return Striped(images.devices, chunk, layout, size, unsure)
        except Damaged as error:
            raise Damaged("RAID", None, f"{error.reason}{images.why}") from error

    def _images(self, name: str, segment: Section) -> _Images:
        images: list[Device | None] = []
        headers: list[Device | None] = []
        why = ""
        for header, image in _raids(segment, name):
            try:
                headers.append(self._device(header))
                images.append(self._device(image))
            except Damaged as error:
                headers[len(images) :] = [None]
                images.append(None)
                why = why or f": {error}"
        known = trusted(headers)
        headers = [header if fit else None for header, fit in zip(headers, known, strict=True)]
        if not all(known) and not was_synchronized(headers):
            reason = "a member is missing, and the others were not yet synchronized"
            raise Damaged("RAID", None, f"{reason}{why}")
        images = [image if fit else None for image, fit in zip(images, known, strict=True)]
        return _Images(images, headers, why)

    def _thin(self, name: str, segment: Section) -> Device:
        pool = self._pool(word(segment, "thin_pool", name))
        origin = word(segment, "external_origin", name, "")
        under = self._device(origin) if origin else None
        number_in_pool = number(segment, "device_id", name)
        return Thin(pool, number_in_pool, self._size(name, segment), under)

    def _pool(self, name: str) -> Pool:
        if name not in self._pools:
            volume = self._group.logical.get(name)
            if volume is None:
                raise Damaged("LVM metadata", None, f"there is no thin pool {name}")
            segment = section(volume, "segment1", name)
            before, self._used = self._used, set()
            doubt, self._doubt = self._doubt, ""
            try:
                metadata = self._device(word(segment, "metadata", name))
                data = self._device(word(segment, "pool", name))
                pool = Pool(metadata, data)
                self._doubt = self._doubt or _doubt_of(pool, segment)
                self._pools[name] = pool, self._used, self._doubt
            finally:
                self._used |= before
                self._doubt = self._doubt or doubt
        pool, used, doubt = self._pools[name]
        self._used |= used
        self._doubt = self._doubt or doubt
        return pool

    def _cached(self, name: str, segment: Section) -> Device:
        pool = self._group.logical.get(word(segment, "cache_pool", name))
        mode = segment.get("cache_mode")
        if mode is None and pool is not None:
            mode = section(pool, "segment1", name).get("cache_mode")
        if mode not in SAFE_CACHES:
            raise Damaged(
                "LVM", None, f"{name} has a cache that may hold writes of its own ({mode})"
            )
        return self._device(word(segment, "origin", name))

    def _snapshot(self, name: str, segment: Section) -> Device:
        if "merging_store" in segment:
            raise Damaged("LVM", None, "a snapshot that is being merged is not supported")
        origin = self._device(word(segment, "origin", name))
        store = self._device(word(segment, "cow_store", name))
        snapshot = Snapshot(origin, store, self._size(name, segment), self._room)
        self._room -= snapshot.changed
        return snapshot


def _doubt_of(pool: Pool, segment: Section) -> str:
    """Return why a pool may not be that of which the group tells, "" when it is."""
    if pool.needs_check:
        return UNCHECKED
    return "" if segment.get("transaction_id", 0) == pool.transaction else OTHER_TIMES


def _merged(volumes: Iterable[Section]) -> Iterator[str]:
    """Yield the volumes that a snapshot is being merged into: parts of them are as it was."""
    for volume in volumes:
        segment = volume.get("segment1")
        if isinstance(segment, dict) and "merging_store" in segment:
            yield str(segment.get("origin"))


def _pairs(found: Sequence[int | str], name: str) -> list[tuple[str, int | str]]:
    if not found or len(found) % 2:
        raise Damaged("LVM metadata", None, f"{name} has {len(found)} values where pairs are due")
    return [(str(one), two) for one, two in zip(found[::2], found[1::2], strict=True)]


def _raids(segment: Section, name: str) -> list[tuple[str, str]]:
    return [(meta, str(image)) for meta, image in _pairs(values(segment, "raids", name), name)]


def _exactly(device: Device, size: int, name: str) -> Device:
    part = Stretch(device, 0, size)
    if part.size < size:
        raise Damaged("LVM", None, f"{name} is longer than what it lies on")
    return part

"""From disks to what lies on them: partitions in disks, volumes over them, file systems in those.

Each device is looked at once. A layer that gathers (LVM, RAID) waits until nothing else yields a
new volume, because its members may lie on any disk, and inside any other layer. Where a partition
table lies beside the mark of something else, one of both may be left over: both are shown.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from backgate.fs.volume import DOUBT, Device, Layer, Volume
from backgate.fs.volumes import FILE_SYSTEMS, LAYERS, load
from backgate.fs.volumes.marks import TYPES, is_blank, meaning
from backgate.fs.volumes.mbr import SECTOR, entries
from backgate.fs.volumes.names import file_name, unique_names
from backgate.gateway.errors import Damaged

DEPTH_MAX = 12  # layers over a disk: partition, RAID, LUKS, LVM and a machine's disk in it are 6
FOUND_MAX = 4096  # disks and volumes of one backup; a volume group of a thousand is large
BESIDE = "partitions lie there too: one of both may be left over from earlier"


class Found(Struct, frozen=True, kw_only=True):
    """A place where files, or bytes, or only a reason can be shown."""

    path: tuple[str, ...]  # (disk, "1-EFI System"), or ("vg0-root",) where it is gathered
    volume: Volume  # what lies there: of an opened LUKS, the opened volume
    disk: int | None  # number of the disk that it is a part of; None: gathered from `disks`
    disks: tuple[int, ...]  # numbers of all the disks that have bytes of it
    file_system: str = ""  # name in `FILE_SYSTEMS`, "" where there is none that can be read
    member_of: str = ""  # name of the layer that shows its contents elsewhere: "lvm", "md"
    problem: str = ""  # why no files can be shown: a statement without full stop


def discover(disks: Sequence[Volume], secrets: Sequence[bytes] = ()) -> list[Found]:
    """Return every place on `disks`, those in the disks first; `secrets` open what is encrypted.

    Damage of one place is its `problem`. Errors of the disks' own reads other than `Damaged` pass.
    """
    return _Search(disks, secrets).all()


class _Place(Struct, frozen=True, kw_only=True):
    """A volume that is still to be looked at."""

    path: tuple[str, ...]
    volume: Volume
    disk: int | None
    disks: tuple[int, ...]
    order: tuple[int, ...]  # its number among its siblings, after that of what it lies on
    is_divided: bool = False  # partitions are shown beside what is found

    def found(self, what: str, **more: Any) -> Found:
        """Return it as found; `what` names it where no table does."""
        path = self.path
        if self.is_divided or (self.disk is not None and len(path) == 1):
            path = (*path, f"0-{what}")
        return Found(path=path, volume=self.volume, disk=self.disk, disks=self.disks, **more)


class _Search:
    """One walk from the disks."""

    def __init__(self, disks: Sequence[Volume], secrets: Sequence[bytes]) -> None:
        self._secrets = secrets
        self._layers: list[Layer] = [load(value)() for value in LAYERS.values()]
        self._file_systems = {name: load(value) for name, value in FILE_SYSTEMS.items()}
        self._found: list[tuple[tuple[int, ...], Found]] = []  # with the place's order
        self._members: dict[str, list[_Place]] = {}  # by the gathering layer that waits for them
        self._gathered: list[str] = []  # names given to what was gathered, which is all siblings
        self._room = FOUND_MAX - len(disks)
        names = unique_names(file_name(disk.name, "disk") for disk in disks)
        self._due = deque(
            _Place(path=(name,), volume=disk, disk=number, disks=(number,), order=(number,))
            for number, (name, disk) in enumerate(zip(names, disks, strict=True))
        )
        self._gathered_order = len(self._due)

    def all(self) -> list[Found]:
        while self._due or self._gather():
            while self._due:
                self._look(self._due.popleft())
        return [found for _, found in sorted(self._found, key=lambda pair: pair[0])]

    def _tell(self, place: _Place, what: str, **more: Any) -> None:
        self._found.append((place.order, place.found(what, **more)))

    def _look(self, place: _Place) -> None:
        volume = place.volume
        if volume.problem:
            self._tell(place, volume.kind, problem=volume.problem)
            return
        if len(place.order) > DEPTH_MAX:
            self._tell(place, "unknown", problem=f"it lies under more than {DEPTH_MAX} layers")
            return
        try:
            self._look_at(place)
        except Damaged as error:
            self._tell(place, "unknown", problem=str(error))

    def _look_at(self, place: _Place) -> None:
        layer = self._layer(place, certain=True)
        file_system = "" if layer else self._file_system(place.volume.device)
        if not file_system:
            layer = layer or self._layer(place, certain=False)
        if file_system or (layer and layer.is_beside_tables(place.volume.device)):
            place = self._divided_beside(place)
        if file_system:
            self._tell(place, file_system, file_system=file_system)
        elif layer is None:
            self._tell(place, "unknown", problem=_what_else(place.volume))
        elif layer.gathers:
            self._members.setdefault(layer.name, []).append(place)
        else:
            self._divide(layer, place)

    def _layer(self, place: _Place, *, certain: bool) -> Layer | None:
        for layer in self._layers:
            looked_for = not (layer.divides and place.volume.kind == "partition")
            if layer.certain is certain and looked_for and layer.claims(place.volume.device):
                return layer
        return None

    def _file_system(self, device: Device) -> str:
        for name, kind in self._file_systems.items():
            if kind.claims(device):
                return name
        return ""

    def _divided_beside(self, place: _Place) -> _Place:
        """Return `place`, as divided when a partition table lies there too: its parts are due then.

        Only one in the first sector counts: whatever takes a whole disk clears that, but a table
        that is written later leaves most marks as they are.
        """
        device = place.volume.device
        if place.volume.kind == "partition" or not entries(device.read_at(0, SECTOR)):
            return place
        tables = (layer for layer in self._layers if layer.divides and layer.claims(device))
        layer = next(tables, None)
        if layer is None:
            return place
        try:
            volumes = self._volumes(layer, [place])
        except Damaged:
            return place
        if not volumes:
            return place
        self._put(layer, place, volumes)
        volume = replace(place.volume, notes={**place.volume.notes, DOUBT: BESIDE})
        return replace(place, volume=volume, is_divided=True)

    def _divide(self, layer: Layer, place: _Place) -> None:
        """Put what `layer` makes of `place` on the list of what is due."""
        volumes = self._volumes(layer, [place])
        if not volumes:
            self._tell(place, layer.name, problem="no partition is in its table")
        self._put(layer, place, volumes)

    def _put(self, layer: Layer, place: _Place, volumes: Sequence[Volume]) -> None:
        names = unique_names(file_name(volume.name) for volume in volumes)
        for number, (name, volume) in enumerate(zip(names, volumes, strict=True)):
            self._due.append(
                _Place(
                    path=place.path if layer.replaces else (*place.path, name),
                    volume=volume,
                    disk=place.disk,
                    disks=place.disks,
                    order=(*place.order, number),
                    is_divided=layer.replaces and place.is_divided,
                )
            )

    def _gather(self) -> bool:
        """Open the first layer that has members, only it: it may yield members of another."""
        for layer in self._layers:
            places = self._members.pop(layer.name, [])
            if places:
                self._open(layer, places)
                return True
        return False

    def _open(self, layer: Layer, places: list[_Place]) -> None:
        problem, volumes = "", []
        try:
            volumes = self._volumes(layer, places)
        except Damaged as error:
            problem = str(error)
        for place in places:
            self._tell(place, layer.name, member_of=layer.name, problem=problem)
        before = len(self._gathered)
        self._gathered += [file_name(volume.name) for volume in volumes]
        self._gathered = unique_names(self._gathered)
        depth = max(len(place.order) for place in places)
        for name, volume in zip(self._gathered[before:], volumes, strict=True):
            self._gathered_order += 1
            on = {disk for number in volume.members for disk in places[number].disks}
            self._due.append(
                _Place(
                    path=(name,),
                    volume=volume,
                    disk=None,
                    disks=tuple(sorted(on)),
                    order=(self._gathered_order, *(0,) * depth),
                )
            )

    def _volumes(self, layer: Layer, places: Sequence[_Place]) -> list[Volume]:
        volumes = layer.volumes([place.volume for place in places], self._secrets)
        if len(volumes) > self._room:
            raise Damaged(layer.name, None, f"more than {FOUND_MAX} volumes in one backup")
        self._room -= len(volumes)
        return volumes


def _what_else(volume: Volume) -> str:
    """Return why nothing is shown of a volume that neither a layer nor a file system claims."""
    kind = volume.notes.get("type", "") if volume.kind == "partition" else ""
    known = meaning(volume.device) or TYPES.get(kind)
    if known:
        return known
    why = "its beginning is zeros" if is_blank(volume.device) else "nothing known here is on it"
    return f"{why}; the partition table gives its type as {kind!r}" if kind else why

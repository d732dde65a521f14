"""What a worker holds open: the disks of one backup, the volumes on them, their file systems.

Volumes have numbers: first come the disks themselves, then what was found on them. All of it is
found again, in the same order, by a worker that is started anew.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from cachetools import LRUCache
from msgspec.structs import replace

from backgate.fs.parser.asked import Blocks, Gateway
from backgate.fs.parser.containers import open_disk
from backgate.fs.parser.messages import (
    EXTENTS_MAX,
    NOTES_MAX,
    READ_MAX,
    TEXT_MAX,
    XATTRS_MAX,
    XATTRS_SIZE_MAX,
    Bytes,
    Child,
    Children,
    Discover,
    DiskFacts,
    Extents,
    Facts,
    Lying,
    Message,
    Nodes,
    Notes,
    Open,
    Opened,
    Read,
    Request,
    Root,
    Told,
    Values,
    VolumeFacts,
    Volumes,
    Xattrs,
)
from backgate.fs.volume import Device, Extent, FileSystem, Node, Volume
from backgate.fs.volumes import FILE_SYSTEMS, load
from backgate.fs.volumes.discovery import Found, discover
from backgate.gateway.errors import Damaged

OPEN_MAX = 8  # file systems that are open at a time; each keeps up to 60 MiB
TIME_MIN_NS, TIME_MAX_NS = -(2**63), 2**64 - 1  # what a message can hold: the years 1677 to 2554


class Image:
    """The disks that `request` tells of, whose bytes come from `gateway`."""

    def __init__(self, gateway: Gateway, request: Open) -> None:
        self._blocks = Blocks(gateway)
        self._passphrases = request.passphrases
        self._disks: list[Volume] = []
        self._notes: list[Mapping[str, str]] = []  # of each disk
        for number, disk in enumerate(request.disks):
            size = request.sizes[disk.source]
            opened = open_disk(gateway, self._blocks, number, disk, size)
            self._disks.append(
                Volume(
                    name=disk.name,
                    device=opened.device,
                    kind="disk",
                    problem=opened.problem,
                )
            )
            self._notes.append(opened.notes)
        self._found: Sequence[Found] | None = None
        self._file_systems: LRUCache[int, FileSystem | Damaged] = LRUCache(OPEN_MAX)
        self._told: dict[int, Mapping[str, str]] = {}  # notes of those that were open once

    def forget(self) -> None:
        """Let go of what can be had again: memory has run out."""
        self._file_systems.clear()
        self._blocks.clear()

    def opened(self) -> Opened:
        """Return how large the disks are."""
        return Opened(
            [
                DiskFacts(disk.device.size, _text(disk.problem), _notes(notes))
                for disk, notes in zip(self._disks, self._notes, strict=True)
            ]
        )

    def answer(self, request: Request) -> Message:
        """Return the answer to anything but `Open`; errors as the drivers raise them."""
        match request:
            case Discover():
                return self._volumes()
            case Facts(volume):
                return Told(_notes(self._file_system(volume).notes))
            case Root(volume):
                return Nodes([_sendable(self._file_system(volume).root())], None)
            case Child(volume, directory, name):
                node = self._file_system(volume).child(directory, name)
                return Nodes([_sendable(node)], None)
            case Children(volume, directory, cursor):
                page = self._file_system(volume).children(directory, cursor)
                return Nodes([_sendable(node) for node in page.nodes], page.cursor)
            case Xattrs(volume, node):
                return _values(self._file_system(volume).xattrs(node))
            case Extents(volume, file, offset, length):
                return _lying(self._extents(volume, file, offset, length))
            case Read(volume, file, offset, length):
                return Bytes(self._read(volume, file, offset, min(length, READ_MAX)))
        raise TypeError(type(request).__name__)

    def _extents(
        self, volume: int, file: bytes | None, offset: int, length: int
    ) -> Iterator[Extent]:
        if file is None:
            return self._device(volume).extents(offset, length)
        return self._file_system(volume).extents(file, offset, length)

    def _read(self, volume: int, file: bytes | None, offset: int, length: int) -> bytes:
        if file is None:
            return self._device(volume).read_at(offset, length)
        return self._file_system(volume).read_at(file, offset, length)

    def _volumes(self) -> Volumes:
        return Volumes(
            [
                VolumeFacts(
                    path=[_text(name) for name in found.path[found.disk is not None :]],
                    disk=found.disk,
                    disks=list(found.disks),
                    kind=found.volume.kind,
                    label=_text(found.volume.label),
                    file_system=found.file_system,
                    size=found.volume.device.size,
                    problem=_text(found.problem),
                    member_of=found.member_of,
                    notes=_notes(found.volume.notes),
                )
                for found in self._discovered()
            ]
        )

    def _discovered(self) -> Sequence[Found]:
        if self._found is None:
            self._found = discover(self._disks, self._passphrases)
        return self._found

    def _device(self, number: int) -> Device:
        if number < len(self._disks):
            return self._disks[number].device
        return self._discovered()[number - len(self._disks)].volume.device

    def _file_system(self, number: int) -> FileSystem:
        opened = self._file_systems.get(number)
        if opened is None:
            opened = self._file_systems[number] = self._open_file_system(number)
        if isinstance(opened, Damaged):
            raise opened.with_traceback(None)
        return opened

    def _open_file_system(self, number: int) -> FileSystem | Damaged:
        found = self._discovered()[number - len(self._disks)]
        if not found.file_system:
            return Damaged("", None, found.problem or "no file system that is known")
        kind: type[FileSystem] = load(FILE_SYSTEMS[found.file_system])
        try:
            opened = kind(found.volume.device)
        except Damaged as error:
            return error
        if self._told.setdefault(number, opened.notes) != opened.notes:
            return Damaged("", None, "it can no longer be opened in the state that it was in")
        return opened


def _lying(extents: Iterable[Extent]) -> Lying:
    """Return the first extents, those that follow each other on one disk as one."""
    merged: list[tuple[int, int, int]] = []
    for length, disk, offset in islice(extents, 4 * EXTENTS_MAX):
        if merged:
            last_length, last_disk, last_offset = merged[-1]
            if disk == last_disk and (disk < 0 or offset == last_offset + last_length):
                merged[-1] = (last_length + length, disk, last_offset)
                continue
        if len(merged) == EXTENTS_MAX:
            break
        merged.append((length, disk, offset if disk >= 0 else 0))
    return Lying(merged)


def _values(xattrs: Mapping[bytes, bytes]) -> Values:
    size = sum(len(name) + len(value) for name, value in xattrs.items())
    if len(xattrs) > XATTRS_MAX or size > XATTRS_SIZE_MAX:
        raise Damaged("", None, "more extended attributes than can be shown")
    return Values(list(xattrs.items()))


def _sendable(node: Node) -> Node:
    """Return the node with times that a message can hold."""
    times = (node.mtime_ns, node.atime_ns, node.ctime_ns)
    if min(times) >= TIME_MIN_NS and max(times) <= TIME_MAX_NS:
        return node
    mtime, atime, ctime = (min(max(time, TIME_MIN_NS), TIME_MAX_NS) for time in times)
    return replace(node, mtime_ns=mtime, atime_ns=atime, ctime_ns=ctime)


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:TEXT_MAX]


def _notes(notes: Mapping[str, str]) -> Notes:
    return {_text(name): _text(text) for name, text in islice(notes.items(), NOTES_MAX)}

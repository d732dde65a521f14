"""Disks that come in a container: where its bytes lie in the files that it is made of.

qcow2, VMDK and VHDX, as the fs-explorer library maps them. Files beside an image (parents,
extents) are asked of the gateway by the name that the image gives; it says which may be had.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fs_explorer.containers._diskutil import BlockMap, ConcatDisk, PaddedRA
from fs_explorer.errors import TargetNotFoundError
from fs_explorer.io.source import CachedRA, RandomAccess
from fs_explorer.io.view import SubView
from fs_explorer.tree import ProbeHint

from backgate.fs.parser.asked import Blocks, Gateway, SourceDevice
from backgate.fs.parser.messages import Disk
from backgate.fs.parser.parents import check_parents
from backgate.fs.volume import ENCODED, HOLE, Device, Extent
from backgate.fs.volumes import load
from backgate.fs.volumes.devices import Empty
from backgate.fs.volumes.explorer import Access, context, lying, translated
from backgate.gateway.errors import Damaged

RAW, VMDK = "raw", "vmdk"
CONTAINERS = {
    "qcow2": "fs_explorer.containers.qcow2:QCOW2Driver",
    "vhdx": "fs_explorer.containers.vhdx:VHDXDriver",
    "vmdk": "fs_explorer.containers.vmdk:VMDKDriver",
}
HEAD = 64 << 10  # bytes that a driver is given of the beginning, and of the end
SIZE_MAX = 1 << 56  # bytes of a disk; larger than any of the containers can have
NESTED_MAX = 64  # maps in one another: a chain of 16 images, each in a view of a view


@dataclass(frozen=True, slots=True)
class OpenedDisk:
    """A disk, or why there is none to be read."""

    device: Device
    problem: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)


def open_disk(gateway: Gateway, blocks: Blocks, number: int, disk: Disk, size: int) -> OpenedDisk:
    """Return the disk with this number, whose own source is of `size` bytes."""
    source = SourceDevice(blocks, disk.source, size)
    if disk.problem:
        return OpenedDisk(Empty(0), disk.problem)
    if disk.kind == RAW:
        return OpenedDisk(source)
    if disk.kind not in CONTAINERS:
        return OpenedDisk(Empty(0), f"{disk.kind} images are not supported")

    opened: list[RandomAccess] = []

    def beside(name: str) -> RandomAccess:
        found = gateway.want_file(number, name)
        if found is None:
            raise TargetNotFoundError(f"there is no {name!r} beside it in the repository")
        opened.append(Access(SourceDevice(blocks, *found)))
        return opened[-1]

    access = Access(source)
    try:
        with translated(), warnings.catch_warnings():
            warnings.simplefilter("error")  # a parent that does not fit is a warning to the library
            found = _opened(disk, access, beside)
            if disk.kind == VMDK:
                check_parents(access, opened)
            return found
    except Warning as warning:
        return OpenedDisk(Empty(0), str(warning))
    except Damaged as error:
        return OpenedDisk(Empty(0), error.reason)


def _opened(disk: Disk, access: Access, beside: object) -> OpenedDisk:
    shared = context()
    shared.resolver = beside  # type: ignore[assignment]  # a `RandomAccess` is as good as a file
    tail = access.read_at(max(0, access.size - HEAD), HEAD)
    hint = ProbeHint(access, access.read_at(0, HEAD), tail, access.size, disk.name)
    found = load(CONTAINERS[disk.kind]).open(access, shared, hint)
    mapped = found.device()
    if mapped.size > SIZE_MAX:
        raise Damaged("", None, f"it claims a disk of {mapped.size} bytes")
    notes = {"container": found.description}
    for name in ("backing_file", "parent", "data_file"):
        if name in found.extra:
            notes[name.replace("_", " ")] = str(found.extra[name])
    return OpenedDisk(Mapped(mapped), notes=notes)


class Mapped:
    """A device that the library maps onto files."""

    def __init__(self, mapped: RandomAccess) -> None:
        self._mapped, self.size = mapped, mapped.size

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        if length <= 0 or offset < 0:
            return b""
        with translated():
            return bytes(self._mapped.read_at(offset, length))

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        length = min(length, self.size - offset)
        if length > 0 and offset >= 0:
            with translated():
                yield from _lying(self._mapped, offset, length, NESTED_MAX)


def _lying(mapped: RandomAccess, offset: int, length: int, depth: int) -> Iterator[Extent]:
    """Say where a stretch lies, through whatever maps are laid over the files."""
    if depth == 0:
        raise Damaged("", None, f"more than {NESTED_MAX} maps in one another")
    inside = min(length, mapped.size - offset)
    if inside <= 0:
        pass
    elif isinstance(mapped, BlockMap):
        yield from _in_blocks(mapped, offset, inside, depth - 1)
    elif isinstance(mapped, ConcatDisk):
        yield from _in_parts(mapped, offset, inside, depth - 1)
    elif isinstance(mapped, PaddedRA | CachedRA):
        yield from _lying(mapped.inner, offset, inside, depth - 1)
    elif isinstance(mapped, SubView):
        yield from _lying(mapped.parent, mapped.off + offset, inside, depth - 1)
    else:
        yield from lying(mapped, offset, inside)
    if inside < length:  # an image smaller than the one laid over it ends in zeros
        yield Extent(length - max(0, inside), HOLE, 0)


def _in_parts(disk: ConcatDisk, offset: int, length: int, depth: int) -> Iterator[Extent]:
    stop = offset + length
    for (part, size), start in zip(disk.parts, disk.starts, strict=True):
        begin, end = max(offset, start), min(stop, start + size)
        if begin >= end:
            continue
        if part is None:
            yield Extent(end - begin, HOLE, 0)
        else:
            yield from _lying(part, begin - start, end - begin, depth)


def _in_blocks(blocks: BlockMap, offset: int, length: int, depth: int) -> Iterator[Extent]:
    stop, size = offset + length, blocks.block_size
    for number in range(offset // size, -(-stop // size)):
        resolved = blocks.resolve(number)
        segments = [(0, size, resolved)] if isinstance(resolved, tuple) else resolved
        for at, stretch, kind in segments:
            start = number * size + at
            begin, end = max(offset, start), min(stop, start + stretch, (number + 1) * size)
            if begin < end:
                yield from _piece(blocks, kind, begin, begin - start, end - begin, depth)


def _piece(
    blocks: BlockMap, kind: tuple[object, ...], at: int, skipped: int, length: int, depth: int
) -> Iterator[Extent]:
    """Say where `length` bytes at `at` of the disk lie, `skipped` bytes into what `kind` tells."""
    match kind:
        case ("data", RandomAccess() as file, int(offset)):
            if offset + skipped + length > file.size:
                raise Damaged("", offset, "a block lies beyond the end of the file")
            yield from _lying(file, offset + skipped, length, depth)
        case ("bytes", _):
            yield Extent(length, ENCODED, 0)
        case ("parent",) if blocks.parent is not None:
            yield from _lying(blocks.parent, at, length, depth)
        case _:
            yield Extent(length, HOLE, 0)

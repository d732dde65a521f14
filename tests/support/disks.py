"""Disks for tests of what lies on them: files and bytes as devices."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from backgate.fs.volume import Device, Extent, Volume
from backgate.fs.volumes.discovery import Found, discover
from backgate.gateway.errors import Damaged


class FileDevice:
    """A file as disk `number`; counts the reads that it answers."""

    def __init__(self, path: Path, number: int = 0) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self._number = number
        self.size = os.fstat(self._descriptor).st_size
        self.reads = 0

    def read_at(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        self.reads += 1
        return os.pread(self._descriptor, max(0, min(length, self.size - offset)), offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        length = min(length, self.size - offset)
        if length > 0:
            yield Extent(length, self._number, offset)

    def __del__(self) -> None:
        os.close(self._descriptor)


class BytesDevice:
    """Bytes as disk `number`, for images that a test bends."""

    def __init__(self, data: bytes | bytearray, number: int = 0) -> None:
        self.data, self._number = data, number
        self.size = len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        return bytes(self.data[offset : offset + max(0, length)])

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        length = min(length, self.size - offset)
        if length > 0:
            yield Extent(length, self._number, offset)


def disk(device: Device, name: str = "xvda") -> Volume:
    """Return `device` as a whole disk."""
    return Volume(name=name, device=device, kind="disk")


def found_in(*devices: Device, secrets: Sequence[bytes] = ()) -> dict[str, Found]:
    """Return what is found on disks that are called xvda, xvdb, ..., by path."""
    disks = [disk(device, f"xvd{chr(97 + at)}") for at, device in enumerate(devices)]
    places = discover(disks, secrets)
    answer = {"/".join(found.path): found for found in places}
    assert len(answer) == len(places)  # no path twice
    return answer


def by_extents(device: Device, disks: Sequence[Device]) -> bytes:
    """Return the whole of `device`, read from `disks` by the extents that it tells."""
    pieces = []
    for extent in device.extents(0, device.size):
        assert extent.length > 0
        if extent.disk < 0:
            pieces.append(device.read_at(sum(map(len, pieces)), extent.length))
        else:
            pieces.append(disks[extent.disk].read_at(extent.offset, extent.length))
    return b"".join(pieces)


IMAGES = Path(__file__).parent.parent / "data" / "images"


def unpacked_disks(archive: str, directory: Path) -> dict[str, Path]:
    """Unpack the images of `tests/data/images/archive`; return their paths by name."""
    subprocess.run(["tar", "-xJf", IMAGES / archive, "-C", directory], check=True)
    return {path.stem: path for path in sorted(directory.glob("*.raw"))}


def sectors(name: str, first: int, stop: int) -> bytes:
    """Return what `make_volumes.sh` writes to these sectors of a volume: each says which it is."""
    lines = (f"{name} {number:010d}\n".encode() for number in range(first, stop))
    return b"".join(line.ljust(512, b".") for line in lines)


def read_ends(device: Device) -> None:
    """Read where a bent device begins and ends: it may be damaged, and nothing else."""
    for offset in (0, max(0, device.size - 4096)):
        with suppress(Damaged):
            device.read_at(offset, 4096)
            next(device.extents(offset, 1 << 60), None)

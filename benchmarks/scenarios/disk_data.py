"""A disk with an ext4 partition, and a Xen Orchestra repository whose chain of three ends in it."""

import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import brotli
from support.xen_orchestra import BITMAP, BLOCK, JOB, SECTOR, T1, T2, T3, VM, Writer

from backgate.gateway.units import GIB, KIB, MIB

PARTITION_AT = MIB  # bytes
LARGE, TREE = "large", "tree"
PER_DIRECTORY = 100  # files
LONGEST = 12 * KIB  # bytes of a file in the tree
LINUX = 0x83  # type of a partition
DISK = "system"
TIMES = (T1, T2, T3)


@dataclass(frozen=True, slots=True)
class DiskData:
    """What was backed up."""

    files: Path  # the tree that the file system was made of
    image: Path  # the disk as it is in the youngest backup
    repository: Path
    stretches: list[tuple[int, int]]  # of the large file: offset on the disk, length


def make_disk(home: Path, large: Path, count: int) -> DiskData:
    """Make a disk with a copy of the file `large` and `count` small ones, and its backups."""
    files, image = home / "disk-files", home / "disk.raw"
    _make_files(files, large, count)
    size = large.stat().st_size + count * LONGEST + 256 * MIB
    size = -(-size // GIB) * GIB
    with image.open("wb") as file:
        file.truncate(size)
        sectors = (size - PARTITION_AT) // SECTOR
        entry = struct.pack("<B3xB3xII", 0, LINUX, PARTITION_AT // SECTOR, sectors)
        file.write(bytes(446) + entry + bytes(48) + b"\x55\xaa")
    options = f"offset={PARTITION_AT}"
    blocks = str((size - PARTITION_AT) // KIB) + "k"
    command = ["mke2fs", "-q", "-t", "ext4", "-E", options, "-d", str(files), str(image), blocks]
    subprocess.run(command, check=True)
    repository = home / "disk-repository"
    _back_up(image, repository)
    return DiskData(files, image, repository, list(_stretches(image)))


def decode_chain(repository: Path, image: Path) -> None:
    """Write the youngest disk of a repository that was downloaded to `image`."""
    data = repository / f"xo-vm-backups/{VM}/vdis/{JOB}/{DISK}/data"
    footer = brotli.decompress((data / f"{TIMES[-1]}.vhd/footer").read_bytes())
    with image.open("wb") as file:
        file.truncate(int.from_bytes(footer[48:56], "big"))
        for number in range(os.stat(image).st_size // BLOCK):
            for time in reversed(TIMES):
                block = data / f"{time}.vhd/blocks/{number // 1000}/{number % 1000}"
                if block.exists():
                    file.seek(number * BLOCK)
                    file.write(brotli.decompress(block.read_bytes())[SECTOR:])
                    break


def _make_files(files: Path, large: Path, count: int) -> None:
    choice = random.Random(0)
    for number in range(count):
        directory = files / TREE / f"d{number // PER_DIRECTORY:03}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number:05}").write_bytes(choice.randbytes(choice.randrange(LONGEST)))
    shutil.copyfile(large, files / LARGE)


def _back_up(image: Path, repository: Path) -> None:
    """Each block is last written by one of the three backups; the older ones have another."""
    writer = Writer(repository)
    content = image.read_bytes()
    old = os.urandom(BLOCK)
    empty = bytes(BLOCK)
    count = len(content) // BLOCK
    used = [n for n in range(count) if content[n * BLOCK : (n + 1) * BLOCK] != empty]
    parent = None
    for place, time in enumerate(TIMES):
        blocks = {}
        for number in used:
            last = number % len(TIMES)  # which backup wrote what the disk has now
            if last == place:
                blocks[number] = (BITMAP, content[number * BLOCK : (number + 1) * BLOCK])
            elif last > place:
                blocks[number] = (BITMAP, old)
        writer.write_blocks(DISK, time, content, blocks, parent)
        writer.write_metadata(time, [DISK])
        parent = time


def _stretches(image: Path) -> Iterator[tuple[int, int]]:
    """Tell where the large file lies on the disk, by debugfs(8)."""
    command = ["debugfs", "-R", f"dump_extents -l {LARGE}", f"{image}?offset={PARTITION_AT}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in output.splitlines()[1:]:
        fields = line.replace("/", " ").replace("-", " ").split()
        first, blocks = int(fields[6]), int(fields[8])
        yield PARTITION_AT + first * 4 * KIB, blocks * 4 * KIB

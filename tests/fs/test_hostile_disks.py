"""Disks made by hand to do harm: an error that names it, or zeros, and nothing that takes long."""

import os
import re
import struct
import subprocess
import zlib
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
from support.disk_trees import tree_of
from support.extract import entries, find
from support.trees import run

from backgate.fs.disk_tree import DiskTree
from backgate.fs.tree import Entry
from backgate.gateway.errors import BackgateError, Damaged

WITHIN = (
    240.0  # seconds; two workers of ten seconds of CPU each, and what others take of the machine
)
NAMES = 50_000  # of one directory that are looked at; more than are kept
MEMORY = 400 << 20  # bytes that a worker may ever have used; a library takes 60 MiB
BLOCK = 1024  # bytes, of ext
READ = 1 << 16  # bytes

pytestmark = pytest.mark.slow


def ext(directory: Path, features: str = "^metadata_csum,^has_journal") -> bytearray:
    """Return a disk with a file and a directory."""
    source = directory / "from"
    (source / "directory").mkdir(parents=True)
    (source / "file").write_bytes(os.urandom(100_000))
    for number in range(20):
        (source / f"directory/{number}").write_bytes(b"x")
    image = directory / "image"
    run("mkfs.ext4", "-q", "-b", BLOCK, "-I", 256, "-O", features, "-d", source, image, "8M")
    return bytearray(image.read_bytes())


def inode_at(directory: Path, name: str) -> int:
    """Return where the inode of a file is on the disk."""
    _, block, offset = inode_of(directory, name)
    return int(block) * BLOCK + int(offset, 16)


def inode_of(directory: Path, name: str) -> tuple[str, ...]:
    """Return an inode's number, its block, and where it is in there."""
    command = ["debugfs", "-R", f"imap /{name}", str(directory / "image")]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"Inode (\d+) .*block (\d+), offset (0x[0-9a-f]+)", told, re.DOTALL)
    assert found is not None, told
    return found.groups()


def extents_that_lead_back(directory: Path) -> bytearray:
    image = ext(directory)
    at, block = inode_at(directory, "file") + 40, 7000
    node = struct.pack("<HHHHI", 0xF30A, 1, 4, 2, 0) + struct.pack("<IIHH", 0, block, 0, 0)
    image[at : at + len(node)] = node
    node = struct.pack("<HHHHI", 0xF30A, 1, 84, 1, 0) + struct.pack("<IIHH", 0, block, 0, 0)
    image[block * BLOCK : block * BLOCK + len(node)] = node
    return image


def indirect_blocks_that_lead_back(directory: Path) -> bytearray:
    image = ext(directory, "^metadata_csum,^has_journal,^extent,^64bit")
    at, block = inode_at(directory, "file"), 7000
    image[block * BLOCK : (block + 1) * BLOCK] = struct.pack("<I", block) * (BLOCK // 4)
    image[at + 4 : at + 8] = b"\xff\xff\xff\x7f"  # the size
    image[at + 40 + 12 * 4 : at + 40 + 15 * 4] = struct.pack("<III", block, block, block)
    return image


def file_of_an_exabyte(directory: Path) -> bytearray:
    image = ext(directory)
    at = inode_at(directory, "file") + 108  # the high half of its size
    image[at : at + 4] = (1 << 28).to_bytes(4, "little")
    return image


def directory_of_a_terabyte(directory: Path) -> bytearray:
    image = ext(directory)
    at = inode_at(directory, "directory") + 108
    image[at : at + 4] = (1 << 8).to_bytes(4, "little")
    return image


def directory_of_millions_of_names(directory: Path) -> bytearray:
    """Four extents of blocks of names, all the same blocks."""
    image = ext(directory)
    at, count = inode_at(directory, "directory"), 6000
    inode = int(inode_of(directory, "file")[0])
    image[at + 4 : at + 8] = (4 * count * BLOCK).to_bytes(4, "little")
    leaf = struct.pack("<HHHHI", 0xF30A, 4, 4, 0, 0)
    for number in range(4):
        leaf += struct.pack("<IHHI", number * count, count, 0, 2000)
    image[at + 40 : at + 40 + len(leaf)] = leaf
    for block in range(2000, 2000 + count):
        names = b"".join(
            struct.pack("<IHBB", inode, 16, 8, 1) + b"%08x" % (block * 64 + number)
            for number in range(BLOCK // 16)
        )
        image[block * BLOCK : (block + 1) * BLOCK] = names
    return image


def name_with_a_zero(directory: Path) -> bytearray:
    image = ext(directory)
    return image.replace(b"\x04\x01file", b"\x04\x01f\0le")


def fat(directory: Path, change: Callable[[bytearray, int], None]) -> bytearray:
    source = directory / "from"
    (source / "directory").mkdir(parents=True)
    for number in range(200):
        (source / f"directory/file of some length {number}").write_bytes(b"x")
    image = directory / "image"
    run("truncate", "-s", "16M", image)
    run("mkfs.vfat", "-F", "16", "-s", "1", image)
    run("env", "LC_ALL=C.UTF-8", "mcopy", "-s", "-i", image, source / "directory", "::")
    data = bytearray(image.read_bytes())
    change(data, data.index(b"DIRECT~1"))
    return data


def chain_that_leads_back(directory: Path) -> bytearray:
    def change(data: bytearray, entry: int) -> None:
        (cluster,) = struct.unpack_from("<H", data, entry + 26)
        (reserved,) = struct.unpack_from("<H", data, 14)
        table = reserved * 512
        (second,) = struct.unpack_from("<H", data, table + 2 * cluster)
        struct.pack_into("<H", data, table + 2 * second, cluster)

    return fat(directory, change)


def block_that_unpacks_to_much_more(directory: Path) -> bytearray:
    """A block of squashfs, of 128 KiB, that is a bomb of 100 MiB."""
    source = directory / "from"
    source.mkdir()
    content = bytes(byte & 0x7F for byte in os.urandom(1 << 17))  # some of it can be compressed
    (source / "file").write_bytes(content)
    image = directory / "image"
    run("mksquashfs", source, image, "-quiet", "-no-progress", "-no-fragments")
    data = bytearray(image.read_bytes())
    packed = zlib.compress(content, 9)
    at = data.index(packed[:16])
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
    assert len(bomb) < len(packed)
    data[at : at + len(bomb)] = bomb
    return data


HARMS: dict[str, tuple[Callable[[Path], bytearray], str]] = {
    "an extent tree that leads back into itself": (extents_that_lead_back, "loop|depth"),
    "indirect blocks that lead back into themselves": (indirect_blocks_that_lead_back, "indirect"),
    "a file of an exabyte": (file_of_an_exabyte, ""),
    "a directory of a terabyte": (directory_of_a_terabyte, ""),
    "a directory of millions of names": (directory_of_millions_of_names, ""),
    "a name with a zero": (name_with_a_zero, "no file can have"),
    "a chain of clusters that leads back": (chain_that_leads_back, "loops"),
    "a block that unpacks to much more": (block_that_unpacks_to_much_more, ""),
}


@pytest.mark.parametrize("harm", HARMS)
async def test_a_disk_that_means_harm_does_none(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make, expected = HARMS[harm]
    image = make(tmp_path)

    async with tree_of(bytes(image), b"DEED" + bytes(1 << 16)) as tree:
        with trio.fail_after(WITHIN):
            reasons = await visit(tree, b"disks/xvda/partitions")
        used = peak(tree)
        other = [entry.name async for entry in entries(tree, await find(tree, b"disks/xvdb"))]

    if expected:
        assert re.search(expected, " ".join(reasons))
    else:
        assert all(reasons)
    assert used < MEMORY
    assert other == [b"disk.raw", b"partitions"]
    assert "unexpected" not in caplog.text + " ".join(reasons)


async def visit(tree: DiskTree, path: bytes) -> list[str]:
    """Look at everything below, read what can be read, and return what is said of the rest."""
    reasons: list[str] = []
    waiting = [await find(tree, path)]
    while waiting:
        directory, seen = waiting.pop(), 0
        async with aclosing(entries(tree, directory)) as found:
            try:
                async for entry in found:
                    await look(tree, directory, entry, waiting, reasons)
                    seen += 1
                    if seen == NAMES:
                        break
            except Damaged as error:
                reasons.append(error.reason)
    return reasons


async def look(
    tree: DiskTree, directory: Entry, entry: Entry, waiting: list[Entry], reasons: list[str]
) -> None:
    try:
        entry = entry if entry.is_settled else await tree.child(directory, entry.name)
        if entry.is_directory:
            waiting.append(entry)
        elif entry.is_file and entry.name == b"file":
            async with tree.open(entry) as source:
                for at in (0, source.size // 2, max(0, source.size - READ)):
                    await source.read_at(at, READ)
    except BackgateError as error:
        assert isinstance(error, Damaged)
        reasons.append(error.reason)


def peak(tree: DiskTree) -> int:
    """Return the most memory that the worker has had."""
    worker = tree._parser._worker
    if worker is None:
        return 0
    told = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker.number}/status").read_text())
    assert told is not None
    return int(told[1]) * 1024

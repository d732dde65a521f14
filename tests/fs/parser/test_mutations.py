"""Images with bytes changed and cut off: an error that says what is wrong, or the files.

Each is walked whole, as a program would: every name, attribute and file. What has checksums must be
right where it can be read at all. The short form runs with all tests; `make soak` runs 2,000 images
of each file system.
"""

import logging
import os
import random
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import trio
from support.file_systems import fuse_mounted, unpacked
from support.logs import words_only
from support.trees import run

from backgate.fs.backup_disks import NamedDisk
from backgate.fs.disk_layout import README
from backgate.fs.disk_tree import DiskTree, open_disks
from backgate.fs.format import Surroundings
from backgate.fs.tree import Entry
from backgate.gateway.errors import BackgateError, Damaged
from backgate.gateway.source import Bytes

AT_ONCE = 8  # images in one backup, and so in one worker
FEW, MANY = 8, 2000  # images of each file system
PIECE = 4096  # bytes that are all zero or not: there is nothing to be changed in a hole
CHANGES_MAX = 12  # in one image
ENTRIES_MAX = 3000  # visited in one image; a sample has 60
SOME = 10  # files that can be read of an image, of 45
READ = 1 << 16  # bytes of each file, from its beginning and its end

MAKE = {
    "ext4": "mkfs.ext4 -q -b 1024 -d {source} {image} 6M",
    "ext2": "mkfs.ext2 -q -b 1024 -I 128 -d {source} {image} 6M",
    "btrfs": "mkfs.btrfs -q --mixed --rootdir {source} {image}",
    "ntfs": "mkntfs -q -F -Q -c 512 {image}",
    "vfat": "mkfs.vfat -F 12 {image}",
    "exfat": "mkfs.exfat {image}",
    "squashfs": "mksquashfs {source} {image} -quiet -no-progress -noappend",
    "iso9660": "genisoimage -quiet -R -J -o {image} {source}",
}
SIZES = {"btrfs": "16M", "ntfs": "4M", "vfat": "4M", "exfat": "8M"}
CRASHED = {"btrfs, with a log": "btrfs-crashed-small-nodes"}
SUMMED = ("btrfs",)  # have checksums of the bytes of files, and of all that leads to them
FUSE = {"ntfs": "ntfs-3g", "exfat": "mount.exfat-fuse"}  # what fills those that mkfs cannot


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("mutations") / "from"
    (top / "directory/below/further").mkdir(parents=True)
    for number in range(40):
        (top / f"directory/a file of some length {number}").write_bytes(b"%d" % number * number)
    for size in (0, 1, 3000, 70_000):
        (top / f"file{size}").write_bytes(os.urandom(size))
    (top / "text").write_bytes(b"compress me " * 5000)
    return top


def sample(kind: str, source: Path, directory: Path) -> bytearray:
    """Return an image of this file system with the files of `source`."""
    if kind in CRASHED:
        return bytearray(unpacked(CRASHED[kind], directory).read_bytes())
    image = directory / kind
    words = {"source": source, "image": image}
    if kind in SIZES:
        run("truncate", "-s", SIZES[kind], image)
    run(*[word.format(**words) for word in MAKE[kind].split()])
    if kind == "vfat":
        run("mcopy", "-s", "-i", image, *source.iterdir(), "::")
    if kind in FUSE:
        with fuse_mounted(FUSE[kind], image) as root:
            run("cp", "-r", "--no-dereference", source / "directory", source / "text", root)
    return bytearray(image.read_bytes())


def changed(image: bytearray, chance: random.Random, places: Sequence[int]) -> bytes:
    """Return the image with some bytes of what is not empty changed, or cut off."""
    data = bytearray(image)
    for _ in range(chance.randint(1, CHANGES_MAX)):
        at = chance.choice(places) + chance.randrange(PIECE)
        width = chance.choice((1, 1, 2, 4, 8))
        data[at : at + width] = chance.choice(
            (chance.randbytes(width), b"\xff" * width, bytes(width), b"\x01".rjust(width, b"\0"))
        )
    if chance.random() < 0.1:
        del data[chance.randrange(len(data)) & -512 :]
    return bytes(data)


def places_of(image: bytearray) -> list[int]:
    """Return where there is something; the beginning, where all begins, more than once."""
    starts = range(0, len(image) - PIECE + 1, PIECE)
    found = [at for at in starts if image[at : at + PIECE].strip(b"\0")]
    return [at for at in found for _ in range(4 if at < 16 * PIECE else 1)]


async def walk(tree: DiskTree, files: Mapping[bytes, bytes]) -> int:
    """Visit everything below partitions/ and volumes/, and return how much could be read.

    What is read must be what `files` have, unless that is empty.
    """
    root = await tree.root()
    waiting: list[tuple[Entry, int]] = [(root, 0)]
    visited = read = 0
    while waiting and visited < ENTRIES_MAX:
        directory, depth = waiting.pop()
        cursor = None
        while True:
            try:
                page = await tree.children(directory, cursor)
            except BackgateError as error:
                check(error)
                break
            for entry in page.entries:
                visited += 1
                read += await look(tree, directory, entry, waiting, depth, files)
            cursor = page.cursor
            if cursor is None or visited > ENTRIES_MAX:
                break
    return read


async def look(
    tree: DiskTree,
    directory: Entry,
    entry: Entry,
    waiting: list[tuple[Entry, int]],
    depth: int,
    files: Mapping[bytes, bytes],
) -> int:
    if entry.name in (b"disk.raw", b"volume.raw"):
        return 0
    try:
        if not entry.is_settled:
            entry = await tree.child(directory, entry.name)
        if entry.is_directory and depth < 40:
            waiting.append((entry, depth + 1))
        await tree.xattrs(entry)
        if stat.S_ISREG(entry.mode):
            async with tree.open(entry) as file:
                begin = bytes(await file.read_at(0, READ))
                assert len(begin) == min(READ, file.size)
                at = max(0, file.size - READ)
                end = bytes(await file.read_at(at, READ))
                assert len(end) == file.size - at
            if files and entry.name != README:
                whole = files[entry.name]
                assert (file.size, begin, end) == (len(whole), whole[:READ], whole[at:])
            return 1
    except BackgateError as error:
        check(error)
    return 0


def check(error: BackgateError) -> None:
    """An error of the drivers' own, that says what is wrong; nothing that just came their way."""
    assert isinstance(error, Damaged), error
    assert "unexpected" not in error.reason, error
    assert error.reason


async def walk_all(images: Sequence[bytes], directory: Path, files: Mapping[bytes, bytes]) -> int:
    async with trio.open_nursery() as nursery:
        lent = Surroundings(
            objects=None,  # type: ignore[arg-type]  # the disks are here
            cache_directory=directory,
            secret=None,
            nursery=nursery,
            workers=trio.CapacityLimiter(2),
            memory_limit=64 << 20,
        )
        disks = [
            NamedDisk(name=f"disk{number}", source=Bytes(image), mtime_ns=0)
            for number, image in enumerate(images)
        ]
        async with open_disks(disks, lent, where="a mutation", passphrases=[]) as tree:
            return await walk(tree, files)
    raise AssertionError


async def mutate(
    kind: str,
    count: int,
    source: Path,
    directory: Path,
    seed: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    image = sample(kind, source, directory)
    places = places_of(image)
    paths = (path for path in source.rglob("*") if path.is_file() and kind in SUMMED)
    files = {os.fsencode(path.name): path.read_bytes() for path in paths}
    assert await walk_all([bytes(image)], directory, files) > SOME
    read = 0
    for start in range(0, count, AT_ONCE):
        chance = random.Random(f"{kind} {seed} {start}")
        images = [changed(image, chance, places) for _ in range(AT_ONCE)]
        with words_only():
            read += await walk_all(images, directory, files)
        assert "the parser was ended" not in caplog.text
        caplog.clear()
    assert read > count  # something of most images can still be read


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*MAKE, *CRASHED])
async def test_some_changed_images(
    kind: str, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await mutate(kind, FEW, source, tmp_path, 1, caplog)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", [*MAKE, *CRASHED])
async def test_many_changed_images(
    kind: str, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await mutate(kind, MANY, source, tmp_path, 2, caplog)

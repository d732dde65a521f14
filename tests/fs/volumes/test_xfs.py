"""What we read of an XFS file system is what the kernel shows of it."""

import errno
import os
import random
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest
from support.disks import FileDevice
from support.file_systems import (
    all_children,
    loop_mounted,
    run,
    seen_by_the_kernel,
    seen_by_us,
    unpacked,
)
from support.populated import populate

from backgate.fs.parser.messages import NODES_MAX
from backgate.fs.volume import HOLE, Device, Extent, FileSystem, Node
from backgate.fs.volumes.devices import Overlay
from backgate.fs.volumes.xfs import XfsFileSystem
from backgate.fs.volumes.xfs_geometry import geometry
from backgate.gateway.errors import Damaged, FileError

SECTOR = 512  # bytes
BLOCK = 1 << 20  # bytes, of a request to the store
LONGEST_BLOCK = 65536  # bytes; what is longer is data
NODES_LOOKED_AT = 1000
INDEX_MAGICS = (b"\x3e\xbe", b"\x3d\xff")  # nodes and leaves
WAYS = {
    "as usual": "",
    "large directory blocks": "-b size=1024 -n size=16384",
    "old times, nothing shared": "-m bigtime=0,reflink=0,finobt=0 -i sparse=0",
}


def made(directory: Path, options: str, size: str = "600M") -> Path:
    image = directory / "image"
    run("truncate", "-s", size, image)
    run("mkfs.xfs", "-q", *options.split(), image)
    return image


@pytest.mark.mounted
@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_each_field_of_each_name_is_as_the_kernel_has_it(way: str, tmp_path: Path) -> None:
    image = made(tmp_path, WAYS[way])
    with loop_mounted(image, "rw") as root:
        populate(root)
    with loop_mounted(image) as root:
        expected = seen_by_the_kernel(root)

    seen = seen_by_us(XfsFileSystem(FileDevice(image)))

    assert seen.keys() == expected.keys()
    assert {path: seen[path] for path in seen if seen[path] != expected[path]} == {}


OLD_WAYS = {
    "version 4": "-m crc=0",
    "version 4, types of files not in directories": "-m crc=0 -n ftype=0",
    "version 4, the smallest blocks": "-m crc=0 -b size=512",
    "names in any case": "-n version=ci",
}
DIRECTORIES = (3, 40, 400, 3000)  # names: in the inode, in one block, with one block of index, more


def prototype(directory: Path) -> Path:
    """Describe a file system for mkfs.xfs, for what this kernel does not mount."""
    content = directory / "content"
    content.write_bytes(random.Random(4).randbytes(300_000))
    lines = ["/", "0 0", "d--755 3 4"]
    for count in DIRECTORIES:
        lines.append(f"of{count} d--750 1 2")
        lines += [
            f"Name{number}{'x' * (number % 50)} ---640 7 8 /dev/null" for number in range(count)
        ]
        lines.append("$")
    lines += [f"symlink l--777 0 0 {'t' * 300}", "device b--600 0 0 259 3000", "pipe p--600 0 0"]
    lines += [f"content -u-755 5 6 {content}", "$", ""]
    path = directory / "prototype"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("way", OLD_WAYS)
def test_what_the_kernel_no_longer_mounts_is_read_as_it_was_made(way: str, tmp_path: Path) -> None:
    described = prototype(tmp_path)
    image = made(tmp_path, f"{OLD_WAYS[way]} -p {described}", "320M")
    sizes = {"one": 20, "two": 3000, "three": 65_536}
    for name, size in sizes.items():
        run("xfs_db", "-x", "-c", "path /content", "-c", f"attr_set -u {name} -v {size}", image)

    seen = seen_by_us(XfsFileSystem(FileDevice(image)))

    content = (tmp_path / "content").read_bytes()
    system = XfsFileSystem(FileDevice(image))
    file = system.child(system.root().handle, b"content")
    assert system.read_at(file.handle, 0, file.size) == content
    assert {name: len(value) for name, value in system.xattrs(file.handle).items()} == {
        f"user.{name}".encode(): size for name, size in sizes.items()
    }
    assert seen[b"symlink"].content == b"t" * 300
    assert seen[b"device"].mode == stat.S_IFBLK | 0o600
    assert seen[b"device"].rdev == os.makedev(259, 3000)
    assert stat.S_IMODE(seen[b"content"].mode) == 0o4755
    for count in DIRECTORIES:
        names = {path for path in seen if path.startswith(b"of%d/" % count)}
        assert names == {b"of%d/Name%d%s" % (count, at, b"x" * (at % 50)) for at in range(count)}


@pytest.mark.slow
def test_each_name_is_found_and_no_other(tmp_path: Path) -> None:
    image = made(tmp_path, f"-n version=ci -p {prototype(tmp_path)}", "320M")
    system = XfsFileSystem(FileDevice(image))
    root = system.root()

    for directory in all_children(system, root):
        if stat.S_ISDIR(directory.mode):
            for node in all_children(system, directory):
                assert system.child(directory.handle, node.name) == node
            for name in (b"absent", b"Name", b"Name1" + b"x" * 60, b"..", b"."):
                with pytest.raises(FileError) as error:
                    system.child(directory.handle, name)
                assert error.value.errno == errno.ENOENT


def test_a_name_is_found_although_the_index_is_damaged(tmp_path: Path) -> None:
    device = FileDevice(made(tmp_path, f"-p {prototype(tmp_path)}", "320M"))
    watched = Watched(device)
    system = XfsFileSystem(watched)
    large = system.child(system.root().handle, b"of3000")
    watched.reads.clear()
    found = system.child(large.handle, b"Name2999" + b"x" * 49)
    index = [at for at, _ in watched.reads if device.read_at(at + 8, 2) in INDEX_MAGICS]

    bent = XfsFileSystem(changed(device, index[-1] + 200, b"\xee\xee"))

    assert bent.child(large.handle, found.name) == found
    with pytest.raises(FileError):
        bent.child(large.handle, b"absent")


def test_a_look_up_in_a_large_directory_reads_little(tmp_path: Path) -> None:
    device = FileDevice(made(tmp_path, f"-p {prototype(tmp_path)}", "320M"))
    system = XfsFileSystem(device)
    large = system.child(system.root().handle, b"of3000")
    before = device.reads

    system.child(large.handle, b"Name2999" + b"x" * 49)

    assert device.reads - before <= 8


def test_a_crashed_disk_is_opened_and_listed_with_few_requests(tmp_path: Path) -> None:
    device = Watched(FileDevice(unpacked("xfs-crashed", tmp_path)))

    system = XfsFileSystem(device)
    system.children(system.root().handle)

    runs = [range(at // BLOCK, (at + length - 1) // BLOCK + 1) for at, length in device.reads]
    assert len({block for run in runs for block in run}) < 12


@pytest.mark.mounted
@pytest.mark.slow
def test_a_page_of_a_directory_is_none_too_long_to_be_sent(tmp_path: Path) -> None:
    image = made(tmp_path, "-n size=65536")
    names = [f"{number:04}" for number in range(8300)]
    with loop_mounted(image, "rw") as root:
        for name in names:
            (root / name).touch()
        for name in names[:3500]:  # so that the first block has few, and the second is full
            (root / name).unlink()
    system = XfsFileSystem(FileDevice(image))
    top, cursor, found = system.root().handle, None, list[bytes]()

    for _ in range(100):
        page = system.children(top, cursor)
        assert len(page.nodes) <= NODES_MAX
        found += [node.name for node in page.nodes]
        cursor = page.cursor
        if cursor is None:
            break

    assert sorted(found) == [name.encode() for name in names[3500:]]


def filed_under(name: bytes) -> bytes:
    """The hash of a name in the index of a directory."""
    value = 0
    for byte in name:
        value = byte ^ (value << 7 & 0xFFFFFFFF | value >> 25)
    return value.to_bytes(4, "big")


@pytest.mark.slow
def test_a_name_that_is_not_ascii_is_found_where_case_is_ignored(tmp_path: Path) -> None:
    described, name = prototype(tmp_path), "ÉTÉ".encode()
    described.write_text(described.read_text().replace("Name39", name.decode() + "y" * 3))
    device = FileDevice(made(tmp_path, f"-m crc=0 -n version=ci -p {described}", "320M"))
    watched = Watched(device)
    system = XfsFileSystem(watched)
    directory = system.child(system.root().handle, b"of40")
    watched.reads.clear()
    (node,) = [one for one in all_children(system, directory) if one.name.startswith(name)]
    block = next(at for at, _ in watched.reads if device.read_at(at, 4) == b"XD2B")
    pairs_at = block + 4096 - 8 - 8 * int.from_bytes(device.read_at(block + 4088, 4), "big")
    pairs = [device.read_at(at, 8) for at in range(pairs_at, block + 4088, 8)]
    ours = filed_under(node.name.lower())
    latin = filed_under(node.name.decode("latin-1").lower().encode("latin-1"))
    refiled = sorted(latin + pair[4:] if pair[:4] == ours else pair for pair in pairs)
    assert refiled != pairs

    bent = XfsFileSystem(changed(device, pairs_at, b"".join(refiled)))

    assert system.child(directory.handle, node.name) == node  # as mkfs.xfs files it
    assert bent.child(directory.handle, node.name) == node  # as the kernel does
    with pytest.raises(FileError):
        bent.child(directory.handle, "ÈTÉ".encode())


def changed(device: Device, at: int, data: bytes) -> Overlay:
    """The same disk with other bytes at one place."""
    start = at - at % SECTOR
    sector = bytearray(device.read_at(start, SECTOR))
    sector[at - start : at - start + len(data)] = data
    return Overlay(device, SECTOR, {start // SECTOR: bytes(sector)})


def inode_at(device: Device, node: Node) -> int:
    return geometry(device).inode_at(int.from_bytes(node.inode, "big"))


def old_image(directory: Path) -> tuple[Device, FileSystem]:
    """An XFS of version 4: nothing in it has a checksum that would give damage away."""
    device = FileDevice(made(directory, f"-m crc=0 -p {prototype(directory)}", "320M"))
    return device, XfsFileSystem(device)


def test_a_directory_that_holds_one_above_it_is_not_gone_into(tmp_path: Path) -> None:
    device, system = old_image(tmp_path)
    root = system.root()
    inside = system.child(system.child(root.handle, b"of3").handle, b"Name0")
    number = int.from_bytes(inside.inode, "big").to_bytes(4, "big")
    raw = device.read_at(inode_at(device, system.child(root.handle, b"of3")), 256)
    place = inode_at(device, system.child(root.handle, b"of3")) + raw.rindex(number)

    bent = XfsFileSystem(changed(device, place, root.inode[4:]))

    loop = bent.child(bent.child(root.handle, b"of3").handle, b"Name0")
    assert loop.inode == root.inode
    with pytest.raises(Damaged, match="says that it lies in"):
        bent.children(loop.handle)
    with pytest.raises(Damaged, match="says that it lies in"):
        bent.child(loop.handle, b"of3")


def test_a_file_of_an_exabyte_without_blocks_is_a_hole(tmp_path: Path) -> None:
    device, system = old_image(tmp_path)
    file = system.child(system.root().handle, b"content")

    bent = XfsFileSystem(changed(device, inode_at(device, file) + 56, (1 << 60).to_bytes(8, "big")))

    *stored, hole = bent.extents(file.handle, 0, 1 << 60)
    assert sum(extent.length for extent in stored) < 1 << 20
    assert hole.disk == HOLE
    assert bent.read_at(file.handle, 1 << 59, 1000) == bytes(1000)


def test_an_extent_tree_that_leads_back_into_itself_is_damage(tmp_path: Path) -> None:
    device, system = old_image(tmp_path)
    file = system.child(system.root().handle, b"content")
    at, layout = inode_at(device, file), geometry(device)
    block = next(system.extents(file.handle, 0, 1)).offset  # in the first group
    pointer = struct.pack(">Q", block // layout.block_size)
    in_root, in_block = (layout.inode_size - 104) // 16, (layout.block_size - 24) // 16

    bent = changed(device, block, struct.pack(">4sHHqqQ", b"BMAP", 1, 1, -1, -1, 0))
    bent = changed(bent, block + 24 + 8 * in_block, pointer)
    bent = changed(bent, at + 5, b"\3")  # its extents are in a tree
    bent = changed(bent, at + 82, b"\0")  # and there is nothing else in the inode
    bent = changed(bent, at + 100, struct.pack(">HHQ", 2, 1, 0))
    tree = XfsFileSystem(changed(bent, at + 104 + 8 * in_root, pointer))

    with pytest.raises(Damaged, match="does not hold together"):
        tree.read_at(file.handle, 0, 1)


def test_a_file_on_a_realtime_device_is_refused(tmp_path: Path) -> None:
    device, system = old_image(tmp_path)
    file = system.child(system.root().handle, b"content")

    bent = XfsFileSystem(changed(device, inode_at(device, file) + 90, b"\0\1"))

    with pytest.raises(Damaged, match="realtime device"):
        bent.read_at(file.handle, 0, 1)


def test_a_name_whose_inode_is_damaged_is_still_listed(tmp_path: Path) -> None:
    device = FileDevice(made(tmp_path, f"-p {prototype(tmp_path)}", "320M"))
    system = XfsFileSystem(device)
    root = system.root()
    file = system.child(root.handle, b"content")

    bent = XfsFileSystem(changed(device, inode_at(device, file) + 40, b"damage"))

    listed = {node.name: node.problem for node in all_children(bent, root)}
    assert listed.keys() == {node.name for node in all_children(system, root)}
    assert {name for name, problem in listed.items() if problem} == {b"content"}
    with pytest.raises(Damaged, match="its checksum is wrong"):
        bent.child(root.handle, b"content")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mutations", [40, pytest.param(2000, marks=pytest.mark.soak)])
def test_damage_that_no_checksum_gives_away_is_an_error_or_a_file(
    mutations: int, tmp_path: Path
) -> None:
    device, _ = old_image(tmp_path)
    watched = Watched(device)
    seen_by_us(XfsFileSystem(watched))
    metadata = [(start, length) for start, length in watched.reads if length <= LONGEST_BLOCK]
    chance = random.Random(5)

    for _ in range(mutations):
        sectors: dict[int, bytes] = {}
        for start, length in chance.choices(metadata, k=chance.randrange(1, 6)):
            at = start + chance.randrange(min(length, chance.choice((100, 1 << 20))))
            sector = bytearray(device.read_at(at - at % SECTOR, SECTOR))
            sector[at % SECTOR] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            sectors[at // SECTOR] = bytes(sector)
        bent = Overlay(device, SECTOR, sectors)
        if chance.random() < 1 / 8:
            bent.size = chance.randrange(device.size)  # cut off
        use(bent)


class Watched:
    """A device that notes where it is read."""

    def __init__(self, device: Device) -> None:
        self._device, self.size = device, device.size
        self.reads: list[tuple[int, int]] = []

    def read_at(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return self._device.read_at(offset, length)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        return self._device.extents(offset, length)


def use(device: Device) -> None:
    """Look at everything there is; only the errors that stand in the contract are borne."""
    left: list[Node] = []
    with suppress(Damaged):
        system = XfsFileSystem(device)
        left.append(system.root())
    for _ in range(NODES_LOOKED_AT):
        if not left:
            return
        node = left.pop(0)
        with suppress(Damaged, FileError):
            system.xattrs(node.handle)
            if stat.S_ISDIR(node.mode):
                below = list(islice(all_children(system, node), NODES_LOOKED_AT))
                left += [child for child in below[:100] if not child.problem]
                system.child(node.handle, below[-1].name if below else b"none")
            elif stat.S_ISREG(node.mode):
                list(islice(system.extents(node.handle, 0, node.size), 1000))
                system.read_at(node.handle, node.size // 2, 1000)

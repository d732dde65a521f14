"""What we read of the file systems of the library is what the kernel, or their own tool, shows."""

import os
import struct
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from fs_explorer.tree import Node as Parsed
from support.disks import BytesDevice, FileDevice
from support.file_systems import (
    Seen,
    all_children,
    fuse_mounted,
    loop_mounted,
    run,
    seen_by_the_kernel,
    seen_by_us,
)
from support.populated import populate

from backgate.fs.volume import ENCODED, XATTR_MAX, Extent, FileSystem
from backgate.fs.volumes.btrfs import Btrfs
from backgate.fs.volumes.ext import ExtFileSystem, told_acl
from backgate.fs.volumes.fat import ExFat, Fat
from backgate.fs.volumes.iso9660 import Iso9660
from backgate.fs.volumes.ntfs import ATTRIBUTES, Ntfs
from backgate.fs.volumes.squashfs import Squashfs
from backgate.gateway.errors import Damaged, FileError

EXT = {
    "ext4": "mkfs.ext4 -q",
    "ext4 with small files in inodes": "mkfs.ext4 -q -O inline_data -I 512",
    "ext4 without extents and checksums": "mkfs.ext4 -q -O ^extent,^metadata_csum,^64bit",
    "ext2 of 128-byte inodes": "mkfs.ext2 -q -I 128",
    "ext4 of clusters": "mkfs.ext4 -q -O bigalloc",
}
NAMES = [
    "a",
    "ünïcödé, long",
    "日本語",
    "x" * 200,
    "🜁🜂",
    "spaces and.dots",
    "UPPER lower",
    "lower.txt",
]


def made(directory: Path, command: str, size: str = "600M") -> Path:
    image = directory / "image"
    run("truncate", "-s", size, image)
    run(*command.split(), image)
    return image


def both(image: Path, system: FileSystem) -> tuple[dict[bytes, Seen], dict[bytes, Seen]]:
    with loop_mounted(image) as root:
        return seen_by_us(system), seen_by_the_kernel(root)


def different(seen: Mapping[bytes, Seen], expected: Mapping[bytes, Seen]) -> dict[bytes, Seen]:
    assert seen.keys() == expected.keys()
    return {path: seen[path] for path in seen if seen[path] != expected[path]}


@pytest.mark.mounted
@pytest.mark.slow
@pytest.mark.parametrize("way", EXT)
def test_each_field_of_ext_is_as_the_kernel_has_it(way: str, tmp_path: Path) -> None:
    image = made(tmp_path, EXT[way])
    with loop_mounted(image, "rw") as root:
        populate(root, files=500, large=1_000_000)

    seen, expected = both(image, ExtFileSystem(FileDevice(image)))

    assert different(seen, expected) == {}


@pytest.mark.mounted
@pytest.mark.slow
@pytest.mark.parametrize("compression", ["none", "zlib", "lzo", "zstd"])
def test_each_field_of_btrfs_is_as_the_kernel_has_it(compression: str, tmp_path: Path) -> None:
    image = made(tmp_path, "mkfs.btrfs -q", "300M")
    with loop_mounted(image, f"rw,compress-force={compression}") as root:
        populate(root, files=200, large=1_000_000)
        (root / "compressible").write_bytes(b"the same again " * 100_000)
        run("btrfs", "subvolume", "create", root / "subvolume")
        (root / "subvolume/file").write_text("in a subvolume")
        run("btrfs", "subvolume", "snapshot", "-r", root / "subvolume", root / "snapshot")

    seen, expected = both(image, Btrfs(FileDevice(image)))

    def comparable(all_of: Mapping[bytes, Seen]) -> dict[bytes, Seen]:
        # The kernel numbers inodes by subvolume, and tells each as a device of its own.
        return {path: replace(one, inode=one.inode & 2**64 - 1) for path, one in all_of.items()}

    assert different(comparable(seen), comparable(expected)) == {}
    assert seen[b"subvolume/file"].inode != seen[b"snapshot/file"].inode


@pytest.mark.mounted
@pytest.mark.slow
@pytest.mark.parametrize("compressor", ["gzip", "xz", "zstd", "lzo", "lz4"])
def test_each_field_of_squashfs_is_as_the_kernel_has_it(compressor: str, tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    populate(tmp_path / "from", files=200, large=1_000_000)
    (tmp_path / "from/sparse").unlink()  # it would be read as the terabyte that it is
    for path in (tmp_path / "from").glob("mode *"):
        os.utime(path, (1, 1))  # only 32 bits of time are stored
    image = tmp_path / "image"
    run("mksquashfs", tmp_path / "from", image, "-comp", compressor, "-quiet", "-no-progress")

    seen, expected = both(image, Squashfs(FileDevice(image)))

    def comparable(all_of: Mapping[bytes, Seen]) -> dict[bytes, Seen]:
        # How much a compressed file takes is not stored; we number inodes by where they lie.
        return {path: replace(one, allocated=0, inode=0) for path, one in all_of.items()}

    assert different(comparable(seen), comparable(expected)) == {}
    links = [path for path, one in seen.items() if one.content == seen[b"first name"].content]
    assert len({seen[path].inode for path in links}) == 1


@pytest.mark.mounted
@pytest.mark.slow
def test_ntfs_is_what_its_own_tool_wrote(tmp_path: Path) -> None:
    image = made(tmp_path, "mkntfs -q -F -Q", "60M")
    with fuse_mounted("ntfs-3g", image, "-o", "compression,streams_interface=xattr") as root:
        some_files(root)
        os.link(root / "5000 bytes", root / "another name")
        os.setxattr(root / "5000 bytes", "user.Zone.Identifier", b"[ZoneTransfer]\r\nZoneId=3\r\n")
        (root / "compressed").mkdir()
        os.setxattr(root / "compressed", "system.ntfs_attrib", (0x800).to_bytes(4, "little"))
        (root / "compressed/text").write_bytes(b"compress me " * 50_000)
        with (root / "sparse").open("wb") as file:
            file.truncate(1 << 25)
            file.seek(1 << 24)
            file.write(b"in the middle" * 512)
    with fuse_mounted("ntfs-3g", image, "-o", "ro,streams_interface=xattr") as root:
        expected = seen_by_the_kernel(root)

    seen = seen_by_us(system := Ntfs(FileDevice(image)))

    assert known_to_windows(seen) == known_to_windows(expected)
    assert seen[b"5000 bytes"].inode == seen[b"another name"].inode
    assert seen[b"5000 bytes"].xattrs[b"user.Zone.Identifier"].startswith(b"[ZoneTransfer]")
    assert seen[b"compressed"].xattrs == {ATTRIBUTES: b"0x00000810"} or seen[
        b"compressed"
    ].xattrs == {ATTRIBUTES: b"0x00000800"}
    directory = system.child(system.root().handle, b"compressed")
    text = system.child(directory.handle, b"text")
    assert [extent.disk for extent in system.extents(text.handle, 0, 1000)] == [ENCODED]


@pytest.mark.mounted
@pytest.mark.slow
def test_of_a_stream_that_is_too_long_for_an_attribute_no_more_is_read(tmp_path: Path) -> None:
    image = made(tmp_path, "mkntfs -q -F -Q", "60M")
    with fuse_mounted("ntfs-3g", image, "-o", "streams_interface=windows") as root:
        (root / "file").write_bytes(b"x")
        for name, size in (("small", XATTR_MAX), ("large", 20_000_000), ("長" * 100, 3)):
            Path(f"{root}/file:{name}").write_bytes(b"s" * size)
    system = Ntfs(device := Watched(FileDevice(image)))
    node = system.child(system.root().handle, b"file")
    device.read = 0

    found = system.xattrs(node.handle)

    assert {name: len(value) for name, value in found.items()} == {
        b"user.small": XATTR_MAX,
        b"user.large": XATTR_MAX + 1,
        b"user." + "長".encode() * 100: 3,
    }
    assert device.read < 1_000_000


class Watched:
    """A device that counts what is read of it."""

    def __init__(self, device: FileDevice) -> None:
        self._device, self.size = device, device.size
        self.read = 0  # bytes

    def read_at(self, offset: int, length: int) -> bytes:
        self.read += length
        return self._device.read_at(offset, length)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        return self._device.extents(offset, length)


@pytest.mark.mounted
@pytest.mark.slow
def test_exfat_is_what_its_own_tool_wrote(tmp_path: Path) -> None:
    image = made(tmp_path, "mkfs.exfat", "60M")
    with fuse_mounted("mount.exfat-fuse", image) as root:
        some_files(root)
        expected = seen_by_the_kernel(root)

    seen = seen_by_us(ExFat(FileDevice(image)))

    assert known_to_windows(seen, times=2) == known_to_windows(expected, times=2)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [12, 16, 32])
def test_fat_is_what_was_copied_into_it(bits: int, tmp_path: Path) -> None:
    image = made(tmp_path, f"mkfs.vfat -F {bits}", {12: "4M", 16: "40M", 32: "70M"}[bits])
    source = tmp_path / "from"
    source.mkdir()
    some_files(source, names=[name for name in NAMES if "🜁" not in name], large=1_000_000)
    run("env", "LC_ALL=C.UTF-8", "mcopy", "-s", "-m", "-i", image, *source.iterdir(), "::")

    seen = seen_by_us(Fat(FileDevice(image)))

    expected = seen_by_the_kernel(source)
    assert {path: one.content for path, one in seen.items()} == {
        path: one.content for path, one in expected.items()
    }
    assert {path: one.size for path, one in seen.items() if one.content} == {
        path: one.size for path, one in expected.items() if one.content
    }


@pytest.mark.slow
@pytest.mark.parametrize("option", ["-R", "-J"])
def test_iso_9660_is_what_was_burnt(option: str, tmp_path: Path) -> None:
    source = tmp_path / "from"
    source.mkdir()
    some_files(source, names=["a", "ünïcödé, long", "spaces and.dots", "UPPER lower", "x" * 60])
    if option == "-R":
        (source / "symlink").symlink_to("a")
        (source / "0 bytes").chmod(0o640)
        os.chown(source / "0 bytes", 1000, 1001)
    run(
        "genisoimage", "-quiet", "-input-charset", "utf-8", option, "-o", tmp_path / "image", source
    )

    seen = seen_by_us(Iso9660(FileDevice(tmp_path / "image")))

    expected = seen_by_the_kernel(source)
    assert {path: one.content for path, one in seen.items()} == {
        path: one.content for path, one in expected.items()
    }
    if option == "-R":
        facts = [(one.mode, one.uid, one.gid) for one in (seen[b"0 bytes"], expected[b"0 bytes"])]
        assert facts[0] == facts[1]


def some_files(root: Path, names: list[str] = NAMES, large: int = 3_000_000) -> None:
    """Write what any file system can hold."""
    for size in (0, 1, 600, 5000, large):
        (root / f"{size} bytes").write_bytes(os.urandom(size))
    for name in names:
        (root / name).mkdir(exist_ok=True)
        (root / name / name).write_text(name)
    (root / "many").mkdir()
    for number in range(300):
        (root / "many" / f"a name that is not short {number:05}.log").write_bytes(b"%d" % number)


def known_to_windows(all_of: Mapping[bytes, Seen], times: int = 1) -> dict[bytes, object]:
    """Return what has no owner or mode; to `times` seconds, and without the root's."""
    return {
        path: (
            one.mode & 0o170000,
            one.size if one.mode & 0o100000 else 0,
            one.content,
            one.mtime_ns // (times * 10**9),
        )
        for path, one in all_of.items()
        if path
    }


def test_a_link_of_windows_leads_to_its_place_from_where_it_lies(tmp_path: Path) -> None:
    image = made(tmp_path, "mkntfs -q -F -Q", "20M")
    with fuse_mounted("ntfs-3g", image) as root:
        (root / "a/b").mkdir(parents=True)
        (root / "target").mkdir()
        junction(root / "a/b/junction", r"\??\C:\target")
    system = Ntfs(FileDevice(image))
    a = system.child(system.root().handle, b"a")
    b = system.child(a.handle, b"b")

    node = system.child(b.handle, b"junction")

    assert node.target == b"../../target"
    assert node.size == len(node.target)


def junction(path: Path, target: str) -> None:
    """Make an empty directory a junction, as Windows stores it."""
    path.mkdir()
    name = target.encode("utf-16-le")
    lengths = (0, len(name), len(name) + 2, 0)
    data = b"".join(length.to_bytes(2, "little") for length in lengths) + name + bytes(4)
    value = (0xA0000003).to_bytes(4, "little") + len(data).to_bytes(2, "little") + bytes(2) + data
    os.setxattr(path, "system.ntfs_reparse_data", value)


def test_a_name_is_found_only_as_it_is_written(tmp_path: Path) -> None:
    image = made(tmp_path, "mkfs.vfat -F 16", "20M")
    source = tmp_path / "Name"
    source.write_text("x")
    run("env", "LC_ALL=C.UTF-8", "mcopy", "-i", image, source, "::")
    system = Fat(FileDevice(image))

    assert system.child(system.root().handle, b"Name").size == 1
    for other in (b"name", b"NAME", b"nothing"):
        with pytest.raises(FileError):
            system.child(system.root().handle, other)


@pytest.mark.slow
def test_a_directory_too_large_to_keep_is_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "from"
    source.mkdir()
    for number in range(1800):
        (source / f"{number}").write_bytes(b"")
    image = made(tmp_path, f"mkfs.ext4 -q -d {source}", "20M")
    monkeypatch.setattr("backgate.fs.volumes.explorer.CACHED_MAX", 1000)
    system = ExtFileSystem(FileDevice(image))
    parse, begun = system._children_of, []

    def children_of(directory: Parsed) -> Iterator[Parsed]:
        begun.append(directory)
        return parse(directory)

    monkeypatch.setattr(system, "_children_of", children_of)

    names = [node.name for node in all_children(system, system.root())]

    assert sorted(names) == sorted([b"lost+found", *(b"%d" % number for number in range(1800))])
    assert len(begun) == 2  # once to see that it is too large, and not again for each page
    assert system.child(system.root().handle, b"1799").name == b"1799"
    with pytest.raises(FileError):
        system.child(system.root().handle, b"1800")


def test_a_stream_that_an_error_ended_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "from"
    source.mkdir()
    for number in range(700):
        (source / f"{number}").write_bytes(b"")
    image = made(tmp_path, f"mkfs.ext4 -q -d {source}", "20M")
    monkeypatch.setattr("backgate.fs.volumes.explorer.CACHED_MAX", 100)
    system = ExtFileSystem(FileDevice(image))
    root = system.root().handle
    first = system.children(root)
    with monkeypatch.context() as patch:
        patch.setattr(system._tree, "inodes", lambda _: 1 // 0)
        with pytest.raises(Damaged):
            system.children(root, first.cursor)

    second = system.children(root, first.cursor)

    assert len({node.name for node in (*first.nodes, *second.nodes)}) == 701


def test_a_file_beyond_the_end_of_its_disk_is_damage(tmp_path: Path) -> None:
    source = tmp_path / "from"
    source.mkdir()
    content = os.urandom(2_000_000)
    (source / "file").write_bytes(content)
    image = made(tmp_path, f"mkfs.ext4 -q -O ^has_journal -d {source}", "20M")
    stop = image.read_bytes().rindex(content[-500:])
    system = ExtFileSystem(BytesDevice(image.read_bytes()[:stop]))
    (node,) = [node for node in all_children(system, system.root()) if node.name == b"file"]

    with pytest.raises(Damaged, match="beyond the end"):
        list(system.extents(node.handle, 0, node.size))


def test_noise_where_the_kind_of_a_name_could_be_is_not_read(tmp_path: Path) -> None:
    source = tmp_path / "from"
    (source / "directory").mkdir(parents=True)
    image = made(
        tmp_path, f"mkfs.ext4 -q -O ^filetype,^has_journal,^metadata_csum -d {source}", "8M"
    )
    data = bytearray(image.read_bytes())
    entry = struct.pack("<IHBB", 2, 12, 1, 0) + b"."
    data[data.index(entry) + 7] = 254  # the kernel leaves there what was in its memory

    system = ExtFileSystem(BytesDevice(data))

    names = {node.name for node in all_children(system, system.root())}
    assert names == {b"directory", b"lost+found"}


@pytest.mark.parametrize("stored", [b"", b"\2\0\0\0", b"\1\0\0\0\1\0", b"\1\0\0\0\2\0\6\0\5\0"])
def test_an_access_control_list_cut_off_is_damage(stored: bytes) -> None:
    with pytest.raises(Damaged):
        told_acl(stored)


def test_tools_that_these_tests_need_are_there() -> None:
    for tool in ("mkfs.ext4", "mkfs.btrfs", "mksquashfs", "mkntfs", "mkfs.vfat", "genisoimage"):
        assert subprocess.run(["which", tool], capture_output=True).returncode == 0, tool

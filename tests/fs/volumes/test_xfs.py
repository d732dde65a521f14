"""What we read of an XFS file system is what the kernel shows of it."""

import errno
import os
import random
import stat
from pathlib import Path

import pytest
from support.disks import FileDevice
from support.file_systems import (
    all_children,
    loop_mounted,
    run,
    seen_by_the_kernel,
    seen_by_us,
)
from support.populated import populate

from backgate.fs.volumes.xfs import XfsFileSystem
from backgate.gateway.errors import FileError

SECTOR = 512  # bytes
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


def test_a_look_up_in_a_large_directory_reads_little(tmp_path: Path) -> None:
    device = FileDevice(made(tmp_path, f"-p {prototype(tmp_path)}", "320M"))
    system = XfsFileSystem(device)
    large = system.child(system.root().handle, b"of3000")
    before = device.reads

    system.child(large.handle, b"Name2999" + b"x" * 49)

    assert device.reads - before <= 8

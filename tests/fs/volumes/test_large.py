"""A file system with twenty thousand files and one of 300 MB reads as the kernel shows it."""

from pathlib import Path

import pytest
from support.disks import FileDevice
from support.file_systems import loop_mounted, run, seen_by_the_kernel, seen_by_us
from support.populated import populate

from backgate.fs.volume import FileSystem
from backgate.fs.volumes.ext import ExtFileSystem
from backgate.fs.volumes.xfs import XfsFileSystem

KINDS: dict[str, tuple[type[FileSystem], str]] = {
    "ext4": (ExtFileSystem, "mkfs.ext4 -q"),
    "ext4, data in inodes": (ExtFileSystem, "mkfs.ext4 -q -O inline_data -I 1024"),
    "ext3": (ExtFileSystem, "mkfs.ext3 -q -I 256"),
    "xfs": (XfsFileSystem, "mkfs.xfs -q"),
    "xfs, small blocks": (XfsFileSystem, "mkfs.xfs -q -b size=1024 -i nrext64=1"),
    "xfs, large directory blocks": (XfsFileSystem, "mkfs.xfs -q -n size=65536 -m rmapbt=1"),
}


@pytest.mark.soak
@pytest.mark.mounted
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_each_field_of_each_name_is_as_the_kernel_has_it(kind: str, tmp_path: Path) -> None:
    reader, mkfs = KINDS[kind]
    image = tmp_path / "image"
    run("truncate", "-s", "1G", image)
    run(*mkfs.split(), image)
    with loop_mounted(image, "rw") as root:
        populate(root, files=20_000, large=300_000_000)
    with loop_mounted(image) as root:
        expected = seen_by_the_kernel(root)

    seen = seen_by_us(reader(FileDevice(image)))

    assert len(seen) > 20_000
    assert seen.keys() == expected.keys()
    assert {path: seen[path] for path in seen if seen[path] != expected[path]} == {}

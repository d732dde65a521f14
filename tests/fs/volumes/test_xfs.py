"""What we read of an XFS file system is what the kernel shows of it."""

from pathlib import Path

import pytest
from support.disks import FileDevice
from support.file_systems import loop_mounted, run, seen_by_the_kernel, seen_by_us
from support.populated import populate

from backgate.fs.volumes.xfs import XfsFileSystem

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

"""The disks of VM backups as the tools of administrators read them, through a real mount."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.gateway import Gateway, gateway
from support.trees import run
from support.xen_orchestra import unpack_sample

pytestmark = [
    pytest.mark.mounted,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes loop devices"),
]

DISK = "xen-orchestra/lab-vm/latest/disks/xvda-lab-vm disk a"
START, SIZE = 1 << 20, 5 << 20  # bytes; of the partition with the ext4


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Gateway]:
    store = unpack_sample("vhd", tmp_path)
    with gateway(tmp_path / "gateway", {"url": f"file://{store}"}) as made:
        made.mount("--view", "backups", "--read-only")
        yield made
        made.umount()


def test_a_loop_mount_of_the_disk_shows_the_files_that_are_shown_beside_it(
    mounted: Gateway, tmp_path: Path
) -> None:
    disk = mounted.mountpoint / DISK
    (tmp_path / "loop").mkdir()
    options = f"loop,ro,offset={START},sizelimit={SIZE}"
    run("mount", "-o", options, disk / "disk.raw", tmp_path / "loop")

    try:
        run("diff", "-r", tmp_path / "loop", disk / "partitions" / "1-rootfs")
    finally:
        run("umount", tmp_path / "loop")


def test_qemu_img_converts_the_disk(mounted: Gateway, tmp_path: Path) -> None:
    raw = mounted.mountpoint / DISK / "disk.raw"

    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, tmp_path / "disk.qcow2")

    compared = subprocess.run(
        ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, tmp_path / "disk.qcow2"],
        capture_output=True,
        text=True,
    )
    assert compared.stdout == "Images are identical.\n"

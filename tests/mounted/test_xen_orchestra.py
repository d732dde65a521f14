"""The disks of VM backups as the tools of administrators read them, through a real mount."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from support.gateway import Gateway, anew, gateway
from support.trees import run
from support.xen_orchestra import BLOCK, T1, T2, T3, Writer, changed, disk, unpack_sample
from support.xen_orchestra_merge import merge

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


def test_a_disk_that_is_read_stays_whole_while_it_is_merged_through_the_same_mount(
    tmp_path: Path,
) -> None:
    (tmp_path / "store").mkdir()
    with gateway(tmp_path / "gateway", {"url": f"file://{tmp_path / 'store'}"}) as made:
        made.mount()
        writer = Writer(made.repository, filter=None)
        contents = {T1: disk(3 * BLOCK, "one")}
        contents[T2] = changed(contents[T1], 1, "two")
        contents[T3] = changed(contents[T2], 2, "three")
        for time, content in contents.items():
            writer.back_up(time, {"root": content})
        for time in (T1, T2):
            (made.repository / writer.top / f"{time}.json").unlink()
        raw = made.backups / "xen-orchestra" / "web" / "latest" / "disks" / "xvda-root" / "disk.raw"

        for step in merge(writer, "root", [T1, T2, T3]):
            assert read_anew(raw) == contents[T3], step
        made.umount()


@pytest.mark.parametrize("directories", [True, False])
def test_no_byte_of_another_backup_is_read_while_images_are_merged_beside_the_gateway(
    directories: bool, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    writer = Writer(store, directories=directories, filter=None)
    contents = {T1: disk(3 * BLOCK, "one")}
    contents[T2] = changed(contents[T1], 1, "two")
    contents[T3] = changed(contents[T2], 2, "three")
    for time, content in contents.items():
        writer.back_up(time, {"root": content})
    table = {
        "url": f"file://{store}",
        "writers": "shared",
        "max_age": "0 s",
        "block_cache": "0",
    }
    with gateway(tmp_path / "gateway", table) as made:
        made.mount("--view", "backups", "--read-only")
        top = made.mountpoint / "xen-orchestra" / "web"
        places = dict(zip(contents, sorted(top.glob("20*")), strict=True))
        raws = {time: place / "disks" / "xvda-root" / "disk.raw" for time, place in places.items()}
        assert {time: read_anew(raw) for time, raw in raws.items()} == contents
        for time in (T1, T2):
            (store / writer.top / f"{time}.json").unlink()

        with ExitStack() as stack:
            files = {time: stack.enter_context(raw.open("rb")) for time, raw in raws.items()}
            for step in merge(writer, "root", [T1, T2, T3]):
                assert anew(files[T3]) == contents[T3], step
                for time in (T1, T2):
                    with suppress(OSError):
                        assert anew(files[time]) == contents[time], (step, time)
        made.umount()
    if directories:  # of a file all was in memory
        assert "its backup was deleted" in made.log.read_text()


def read_anew(path: Path) -> bytes:
    """Read a file, and nothing of it from the kernel's pages."""
    with path.open("rb") as file:
        return anew(file)

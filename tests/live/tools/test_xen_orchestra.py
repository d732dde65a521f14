"""What Xen Orchestra asks of a path, call by call as its remote handler makes them, in Python.

Its own programs need a pool of hypervisors. The calls and their order are those of system-call
traces of its file handler, of proper-lockfile, and of merges of VHD files and VHD directories.
"""

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from support.gateway import Gateway

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]

SECTOR = 512  # bytes
HEAD = 3 * SECTOR  # footer's copy and header: what is read of every VHD first
BLOCK = 2 * 1024 * 1024  # bytes of data in a block of a VHD
BLOCKS = 20  # in the disk: it is sent in parts
TABLE = HEAD  # where the table of blocks begins
PROBE_NS = 1_764_339_000_005_000_000  # 5 ms off the second: whether times are that precise


@pytest.fixture
def vm(mounted: Gateway) -> Path:
    made = mounted.repository / "xo-vm-backups" / "vm"
    made.mkdir(parents=True)
    return made


def refused(call: Callable[[], object]) -> int:
    """Return the errno that `call` fails with."""
    with pytest.raises(OSError) as caught:
        call()
    assert caught.value.errno is not None
    return caught.value.errno


def write_stream(path: Path, content: bytes, *, exclusive: bool = True) -> None:
    """What a stream of the handler does: 64 KiB at a time, and nothing but close at the end."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | (os.O_EXCL if exclusive else 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        for at in range(0, len(content), 65536):
            assert os.write(descriptor, content[at : at + 65536]) == len(content[at : at + 65536])
    finally:
        os.close(descriptor)


def read_open_for_both(path: Path, size: int, offset: int) -> bytes:
    descriptor = os.open(path, os.O_RDWR)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def test_a_lock_directory_keeps_its_time_exactly(mounted: Gateway, vm: Path) -> None:
    lock = vm.with_name("vm.lock")

    lock.mkdir()
    for beat in range(3):  # one each five seconds; when it reads back another, the lock is lost
        time_ns = PROBE_NS + beat * 5_017_000_000
        os.utime(lock, ns=(time_ns, time_ns))
        assert lock.stat().st_mtime_ns == time_ns
        assert refused(lock.mkdir) == errno.EEXIST
    mounted.umount()
    mounted.mount()  # a gateway that was started anew holds the lock as well
    assert lock.stat().st_mtime_ns == time_ns
    lock.rmdir()

    assert refused(lock.stat) == errno.ENOENT
    lock.mkdir()
    mounted.umount()


def test_errors_are_those_that_the_handler_tells_apart(mounted: Gateway, vm: Path) -> None:
    write_stream(vm / "a.json", b"{}")

    assert refused(lambda: os.open(vm, os.O_RDWR)) == errno.EISDIR
    assert refused(lambda: os.unlink(vm)) == errno.EISDIR
    assert refused(lambda: os.rmdir(vm)) == errno.ENOTEMPTY
    assert refused(vm.mkdir) == errno.EEXIST
    assert refused(lambda: os.mkdir(vm / "a.json")) == errno.EEXIST
    assert refused(lambda: os.rmdir(vm / "a.json")) == errno.ENOTDIR
    assert refused(lambda: write_stream(vm / "absent" / "a", b"")) == errno.ENOENT
    assert refused(lambda: os.mkdir(vm / "absent" / "a")) == errno.ENOENT
    assert refused(lambda: write_stream(vm / "a.json", b"")) == errno.EEXIST
    assert refused(lambda: os.open(vm / "absent", os.O_RDWR)) == errno.ENOENT
    assert refused(lambda: os.unlink(vm / "absent")) == errno.ENOENT
    assert refused(lambda: os.listdir(vm / "absent")) == errno.ENOENT
    space = os.statvfs(mounted.repository)
    assert space.f_bavail * space.f_frsize > 2**40
    mounted.umount()


@pytest.mark.parametrize("way", ["well", "very faulty"])
def test_a_disk_is_streamed_checked_published_and_merged_into(mounted: Gateway, vm: Path) -> None:
    disks = vm / "vdis" / "job" / "disk"
    disks.mkdir(parents=True)
    parent, child = disks / "20260801T010000Z.vhd", disks / "20260802T010000Z.vhd"
    content = bytearray(random.Random(0).randbytes(2 * HEAD + BLOCKS * BLOCK + SECTOR))
    temporary = disks / f".1764339000000.{parent.name}"

    write_stream(temporary, content)
    assert read_open_for_both(temporary, HEAD, 0) == content[:HEAD]
    assert read_open_for_both(temporary, SECTOR, len(content) - SECTOR) == content[-SECTOR:]
    temporary.rename(parent)
    write_stream(child, b"a child")
    mounted.mount_elsewhere()
    descriptor = os.open(parent, os.O_RDWR)
    try:
        assert os.pread(descriptor, HEAD, 0) == content[:HEAD]
        for number in (3, 4, 17, BLOCKS):  # the last is a new one, where the footer was
            entry, at = TABLE + 4 * number, 2 * HEAD + number * BLOCK
            for offset, piece in ((at, os.urandom(BLOCK)), (entry, os.urandom(4))):
                assert os.pwrite(descriptor, piece, offset) == len(piece)
                content[offset : offset + len(piece)] = piece
            assert os.pread(descriptor, BLOCK, at) == content[at : at + BLOCK]
        footer, end = os.urandom(SECTOR), 2 * HEAD + (BLOCKS + 1) * BLOCK
        for offset in (end, 0):
            os.pwrite(descriptor, footer, offset)
            content[offset : offset + SECTOR] = footer
    finally:
        os.close(descriptor)
    parent.rename(child)
    mounted.mount_elsewhere()

    assert sorted(os.listdir(disks)) == [child.name]
    assert child.read_bytes() == bytes(content)
    mounted.umount()


@pytest.mark.parametrize("way", ["well", "faulty"])
def test_blocks_of_a_disk_move_between_directories(mounted: Gateway, vm: Path) -> None:
    data = vm / "vdis" / "job" / "disk" / "data"
    parent, child = data / "parent.vhd", data / "child.vhd"
    for disk, numbers in ((parent, range(6)), (child, range(4, 10))):
        (disk / "blocks" / "0").mkdir(parents=True)
        for number in numbers:
            write_stream(disk / "blocks" / "0" / str(number), f"{disk.name} {number}".encode())
        for name in ("header", "footer", "bat", "chunk-filters.json"):
            write_stream(disk / name, f"{disk.name} {name}".encode(), exclusive=False)

    for number in range(4, 10):
        (child / "blocks" / "0" / str(number)).rename(parent / "blocks" / "0" / str(number))
    for name in ("bat", "footer"):
        write_stream(parent / name, f"merged {name}".encode(), exclusive=False)
    assert refused(lambda: os.rmdir(child)) == errno.ENOTEMPTY
    for folder, directories, files in os.walk(child, topdown=False):
        for file in files:
            os.unlink(Path(folder, file))
        for directory in directories:
            os.rmdir(Path(folder, directory))
    os.rmdir(child)
    mounted.mount_elsewhere()

    assert os.listdir(data) == ["parent.vhd"]
    found = {int(path.name): path.read_text() for path in (parent / "blocks" / "0").iterdir()}
    owners = {number: parent if number < 4 else child for number in range(10)}
    assert found == {number: f"{disk.name} {number}" for number, disk in owners.items()}
    assert (parent / "bat").read_text() == "merged bat"
    mounted.umount()

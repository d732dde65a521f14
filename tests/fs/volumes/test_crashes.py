"""Whenever a disk is copied, its files are those that the kernel would find on the copy."""

import fcntl
import gc
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import support.busy
from support.disks import FileDevice
from support.few_names import FewNames
from support.file_systems import Seen, loop_mounted, run, seen_by_the_kernel, seen_by_us

from backgate.fs.volume import FileSystem, Node
from backgate.fs.volumes import replay
from backgate.fs.volumes.btrfs import Btrfs
from backgate.fs.volumes.ext import ExtFileSystem
from backgate.fs.volumes.xfs import XfsFileSystem
from backgate.fs.volumes.xfs_geometry import geometry
from backgate.fs.volumes.xfs_log_records import Log

FICLONE = 0x40049409
KINDS: dict[str, tuple[type[FileSystem], str, str]] = {
    "ext4": (ExtFileSystem, "mkfs.ext4 -q", ""),
    "ext4, data in the journal": (ExtFileSystem, "mkfs.ext4 -q -b 1024", "data=journal"),
    "ext4, no checksums": (ExtFileSystem, "mkfs.ext4 -q -O ^metadata_csum,^64bit", ""),
    "ext4, early commits": (
        ExtFileSystem,
        "mkfs.ext4 -q -O ^metadata_csum -J size=4",
        "data=writeback,journal_async_commit",
    ),
    "ext4, small journal": (ExtFileSystem, "mkfs.ext4 -q -J size=4 -O meta_bg,^resize_inode", ""),
    "ext4, fast commits": (ExtFileSystem, "mkfs.ext4 -q -O fast_commit", ""),
    "ext3": (ExtFileSystem, "mkfs.ext3 -q", ""),
    "xfs": (XfsFileSystem, "mkfs.xfs -q", ""),
    "xfs, small blocks": (XfsFileSystem, "mkfs.xfs -q -b size=1024 -n size=8192", ""),
    "xfs, large directory blocks": (XfsFileSystem, "mkfs.xfs -q -n size=65536", ""),
    "xfs, large inodes": (XfsFileSystem, "mkfs.xfs -q -i size=2048", "logbsize=256k"),
    "xfs, reverse map": (XfsFileSystem, "mkfs.xfs -q -m rmapbt=1 -i nrext64=1", ""),
    "xfs, old times": (XfsFileSystem, "mkfs.xfs -q -m bigtime=0,reflink=0", "wsync"),
    "xfs, small log": (XfsFileSystem, "mkfs.xfs -q --unsupported -l size=8m", ""),
    "xfs, large sectors": (XfsFileSystem, "mkfs.xfs -q -s size=4096", "logbsize=256k"),
    "xfs, striped log": (
        XfsFileSystem,
        "mkfs.xfs -q -l version=2,su=32768",
        "logbsize=256k,logbufs=8",
    ),
}
BTRFS = {  # mkfs and mount options
    "btrfs": ("", ""),
    "btrfs, small nodes, items for holes": ("-n 4096 -O ^no-holes", ""),
    "btrfs, large nodes": ("-n 65536", ""),
    "btrfs, data and metadata mixed": ("--mixed -n 4096", ""),
    "btrfs, xxhash": ("--csum xxhash", "max_inline=0"),
    "btrfs, sha256, compressed": ("--csum sha256", "compress-force=zstd"),
    "btrfs, blake2, partly compressed": ("--csum blake2", "compress=lzo,flushoncommit"),
    "btrfs, in place": ("", "nodatacow"),
}
SOME = ["btrfs", "btrfs, small nodes, items for holes", "btrfs, sha256, compressed"]
COPIES = 20
ROUNDS, STEPS = 4, 300
MOST_STEPS = 12  # between two copies, in lines of what is busy


def clone(source: Path, target: Path) -> Path:
    """Copy a file as it is at one moment; both lie on a file system that can."""
    with source.open("rb") as old, target.open("wb") as new:
        fcntl.ioctl(new, FICLONE, old.fileno())
    return target


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory whose files can be copied at one moment."""
    below = tmp_path / "below"
    run("truncate", "-s", "4G", below)
    run("mkfs.xfs", "-q", below)
    with loop_mounted(below, "rw") as root:
        yield root


@pytest.mark.soak
@pytest.mark.mounted
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_files_are_those_that_the_kernel_finds(kind: str, place: Path) -> None:
    reader, mkfs, options = KINDS[kind]
    image = place / "image"
    run("truncate", "-s", "500M", image)
    run(*mkfs.split(), image)
    chance, dirty = random.Random(kind), 0
    with loop_mounted(image, ",".join(["rw", *options.split()])) as root:
        command = [sys.executable, support.busy.__file__, root, "1"]
        command += ["fast"] if "fast_commit" in mkfs else []
        with subprocess.Popen(command, stdout=subprocess.PIPE) as busy:
            assert busy.stdout is not None
            try:
                for number in range(COPIES):
                    for _ in range(chance.randrange(1, MOST_STEPS)):
                        assert busy.stdout.readline() == b"\n"
                    copy = clone(image, place / f"copy{number}")
                    dirty += compare(reader, copy)
                    copy.unlink()
            finally:
                busy.kill()

    assert dirty > COPIES / 2


def compare(reader: type[FileSystem], copy: Path) -> bool:
    """Compare what we read with what the kernel recovers; tell whether there was a journal."""
    system = reader(FileDevice(copy))
    seen = seen_by_us(system)
    if "fast commit" in system.notes.get(replay.JOURNAL, ""):
        assert_nothing_is_lost(seen, copy)
        return True

    expected = recovered_by_the_kernel(reader, copy)

    assert seen.keys() == expected.keys(), system.notes
    assert {path: seen[path] for path in seen if seen[path] != expected[path]} == {}, system.notes
    return system.notes[replay.STATE] == replay.DIRTY


def assert_nothing_is_lost(seen: Mapping[bytes, Seen], copy: Path) -> None:
    """Compare with a kernel that recovers less: at times no directory whose number was in use.

    It makes up what is in no fast commit (how old and large a directory is), and links a file and
    removes its links anew, after its inode has said how many there are. That all is right is shown
    where it can be known, in the tests of fast commits.
    """
    try:
        recovered = recovered_by_the_kernel(ExtFileSystem, copy)
    except AssertionError as error:
        assert "mount" in str(error)  # it can end in not mounting it at all
        return
    expected = {path: without_recovery(one) for path, one in recovered.items()}
    assert {path: without_recovery(seen[path]) for path in expected} == expected


def without_recovery(one: Seen) -> Seen:
    one = replace(one, allocated=0, nlink=0, ctime_ns=0)
    return replace(one, size=0, mtime_ns=0, atime_ns=0) if stat.S_ISDIR(one.mode) else one


def recovered_by_the_kernel(reader: type[FileSystem], copy: Path) -> dict[bytes, Seen]:
    recovered = clone(copy, copy.with_suffix(".recovered"))
    twin = ",nouuid" if reader is XfsFileSystem else ""  # the first one is mounted, too
    try:
        with loop_mounted(recovered, "rw" + twin):
            pass
        with loop_mounted(recovered, "ro,noatime" + twin) as root:
            return seen_by_the_kernel(root)
    finally:
        recovered.unlink()


@contextmanager
def btrfs_mounted(kind: str, image: Path) -> Iterator[Path]:
    """A btrfs with two subvolumes and a snapshot, that is never committed without a reason."""
    mkfs, options = BTRFS[kind]
    run("truncate", "-s", "500M", image)
    run("mkfs.btrfs", "-q", *mkfs.split(), image)
    with loop_mounted(image, ",".join(["rw,commit=300", *options.split()])) as root:
        for name in ("one", "other"):
            run("btrfs", "subvolume", "create", root / name)
            (root / name / "file").write_bytes(name.encode() * 5000)
        run("btrfs", "subvolume", "snapshot", root / "one", root / "snapshot")
        run("sync", "-f", root)
        yield root


@pytest.mark.soak
@pytest.mark.mounted
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", BTRFS)
def test_files_of_btrfs_are_those_that_the_kernel_finds(kind: str, place: Path) -> None:
    image, chance = place / "image", random.Random(kind)
    copies: dict[Path, int] = {}
    with btrfs_mounted(kind, image) as root:
        command = [sys.executable, support.busy.__file__, root, "1", "logged"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as busy:
            assert busy.stdout is not None
            try:
                for number in range(COPIES):
                    for _ in range(chance.randrange(1, MOST_STEPS)):
                        assert busy.stdout.readline() == b"\n"
                    copies[clone(image, place / f"copy{number}")] = time.time_ns()
            finally:
                busy.kill()

    dirty = sum(compare_btrfs(copy, copied) for copy, copied in copies.items())
    assert dirty  # two of three; how many is a matter of what the kernel commits as a whole


@pytest.mark.soak
@pytest.mark.mounted
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", BTRFS)
def test_names_of_btrfs_that_are_used_again_are_as_the_kernel_finds_them(
    kind: str, place: Path
) -> None:
    image = place / "image"
    copies: dict[Path, int] = {}
    for number in range(ROUNDS):
        with btrfs_mounted(kind, image) as root:
            busy = FewNames(root, f"{kind} {number}")
            run("sync", "-f", root)
            for step in range(STEPS):
                if busy.step() and step % 2:
                    copies[clone(image, place / f"copy{number}-{step}")] = time.time_ns()
        image.unlink()

    dirty = sum(compare_btrfs(copy, copied) for copy, copied in copies.items())
    assert dirty


@pytest.mark.mounted
@pytest.mark.slow
@pytest.mark.parametrize("kind", SOME)
def test_what_was_synchronized_on_btrfs_is_as_the_kernel_finds_it(kind: str, place: Path) -> None:
    image, names = place / "image", [b"kept", b"one/new", b"snapshot/file"]
    with btrfs_mounted(kind, image) as root:
        for name in names:
            with open(os.path.join(os.fsencode(root), name), "ab") as file:
                os.pwrite(file.fileno(), name * 3000, 0)
                os.setxattr(file.fileno(), "user.name", name)
                os.fsync(file.fileno())
        copy, copied = clone(image, place / "copy"), time.time_ns()

    system = Btrfs(FileDevice(copy))
    assert "3 log trees" in system.notes[replay.JOURNAL]
    assert [system.xattrs(at(system, name).handle) for name in names] == [
        {b"user.name": name} for name in names
    ]
    del system
    assert compare_btrfs(copy, copied)


def at(system: FileSystem, path: bytes) -> Node:
    node = system.root()
    for name in path.split(b"/"):
        node = system.child(node.handle, name)
    return node


def compare_btrfs(copy: Path, copied: int) -> bool:
    """Compare what we read with what the kernel recovers; tell whether there was a log.

    Only one file system of an identity can be mounted: not while that is which was copied.
    """
    system = Btrfs(FileDevice(copy))
    notes, seen = system.notes, seen_by_us(system)
    del system
    gc.collect()  # nobody may have the copy open when what it lies on is unmounted
    expected = recovered_by_the_kernel(Btrfs, copy)

    assert replay.NOT_REPLAYED not in notes.get(replay.JOURNAL, "")
    assert seen.keys() == expected.keys(), notes
    for path, one in seen.items():
        inode = one.inode & 2**64 - 1  # the kernel numbers them by subvolume
        seen[path] = replace(one, inode=inode)
        if expected[path].ctime_ns > copied:  # a name was removed when it was mounted
            seen[path] = replace(seen[path], ctime_ns=expected[path].ctime_ns)
        if expected[path].mtime_ns > copied:
            seen[path] = replace(seen[path], mtime_ns=expected[path].mtime_ns)
    assert {path: seen[path] for path in seen if seen[path] != expected[path]} == {}, notes
    copy.unlink()
    return notes[replay.STATE] == replay.DIRTY


PUSHED_AFTER = Path("/proc/sys/fs/xfs/xfssyncd_centisecs")  # else no log grows long


@contextmanager
def never_written_back() -> Iterator[None]:
    """Let XFS keep what it has to write back in its logs alone for as long as they have room."""
    before = PUSHED_AFTER.read_text()
    PUSHED_AFTER.write_text("720000")
    try:
        yield
    finally:
        PUSHED_AFTER.write_text(before)


def make_many(root: Path, count: int) -> None:
    """Make names of all kinds, a thousand to a directory, and remove some directories again."""
    for number in range(count):
        directory = root / f"of {number // 1000}"
        directory.mkdir(exist_ok=True)
        path = directory / f"{number} {'x' * (number % 90)}"
        if number % 10 < 6:
            path.symlink_to("t" * (100 + number % 230))
        elif number % 10 < 8:
            path.mkdir()
        else:
            path.touch()
            os.setxattr(path, "user.some", b"v" * (number % 200))
        if number % 20_000 == 19_999:
            shutil.rmtree(root / f"of {number // 2000}")


@pytest.mark.soak
@pytest.mark.mounted
@pytest.mark.timeout(1800)
def test_a_log_of_hundreds_of_mebibytes_is_replayed(place: Path) -> None:
    image = place / "image"
    run("truncate", "-s", "8G", image)
    run("mkfs.xfs", "-q", "-l", "size=1g", image)
    with never_written_back(), loop_mounted(image, "rw") as root:
        make_many(root, 400_000)
        run("xfs_io", "-x", "-c", "shutdown -f", root)

    assert mebibytes_active(image) >= 150
    assert compare(XfsFileSystem, image)
    assert mebibytes_to_open(image) < 400


def mebibytes_active(image: Path) -> int:
    device = FileDevice(image)
    return Log(device, geometry(device)).active >> 20


def mebibytes_to_open(image: Path) -> int:
    """The most memory that opening an XFS takes; its worker has a gibibyte."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from support.disks import FileDevice\n"
        "from backgate.fs.volumes.xfs import XfsFileSystem\n"
        "XfsFileSystem(FileDevice(Path(sys.argv[1])))\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    tests = Path(support.busy.__file__).parent.parent
    command = [sys.executable, "-c", script, image]
    done = subprocess.run(command, check=True, capture_output=True, cwd=tests)
    return int(done.stdout) >> 10

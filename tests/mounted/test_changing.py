"""Changing a mount through the kernel: every call that a backup tool makes, and its errors."""

import ctypes
import errno
import fcntl
import mmap
import os
import random
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from support.dict_tree import DictTree
from support.mounting import Mounted, mounted
from support.syscalls import refusal

from backgate.fs.repository_file import RepositoryFile
from backgate.fs.repository_tree import RepositoryTree
from backgate.fs.tree import Entry, Tree
from backgate.gateway.config import RepositoryConfig
from backgate.gateway.places import places_of
from backgate.gateway.repository import open_repository
from backgate.gateway.source import Source

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
AT_FDCWD = -100
CONTENT = {"old": b"old content", "dir/inner": b"inner", "dir/sub/deep": b"deep"}
PLACES = ("CACHE_DIRECTORY", "STATE_DIRECTORY", "RUNTIME_DIRECTORY")


def writable(happened: Callable[[str, bytes], None]) -> Tree:
    tree = DictTree()
    tree.happened = happened
    for path, content in CONTENT.items():
        tree.add_file(path, content)
    return tree


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Mounted]:
    """A mount of a tree in memory, which tells of every call that it had."""
    with mounted(writable, tmp_path) as made:
        yield made


@pytest.fixture(params=["dict", "repository"])
def mount(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mounted]:
    """A mount of the tree in memory, and one of a real repository: there is no difference."""
    make = writable if request.param == "dict" else partial(repository, tmp_path)
    with mounted(make, tmp_path) as made:
        yield made


@asynccontextmanager
async def repository(home: Path, happened: Callable[[str, bytes], None]) -> AsyncIterator[Tree]:
    """The same files in a local store."""
    for path, content in CONTENT.items():
        (home / "store" / path).parent.mkdir(parents=True, exist_ok=True)
        (home / "store" / path).write_bytes(content)
    config = RepositoryConfig(name="store", url=f"file://{home}/store")
    places = places_of(config, {name: str(home / name) for name in PLACES})
    async with open_repository(config, places, None, writable=True) as opened:
        yield RepositoryTree(opened)


def rename(old: Path, new: Path, flags: int) -> None:
    """renameat2(2), which Python does not have."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)
    if code:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def test_a_file_is_written_flushed_and_read_back(counted: Mounted) -> None:
    (counted.path / "new").write_bytes(b"x" * 300_000)

    assert (counted.path / "new").read_bytes() == b"x" * 300_000
    counted.wait_for(lambda: "release new" in counted.happened())  # nobody waits for a release
    calls = counted.happened()
    assert calls.index("flush new") < calls.index("release new")


def test_random_writes_equal_a_local_file(mount: Mounted, tmp_path: Path) -> None:
    chance = random.Random(7)
    with open(mount.path / "new", "w+b") as here, open(tmp_path / "model", "w+b") as model:
        for _ in range(200):
            offset, data = chance.randrange(500_000), chance.randbytes(chance.randrange(20_000))
            for file in (here, model):
                file.seek(offset)
                file.write(data)
            if chance.random() < 0.1:
                size = chance.randrange(500_000)
                here.truncate(size)
                model.truncate(size)
            if chance.random() < 0.2:
                for file in (here, model):
                    file.flush()
                here.seek(offset // 2)
                model.seek(offset // 2)
                assert here.read(10_000) == model.read(10_000)

    assert (mount.path / "new").read_bytes() == (tmp_path / "model").read_bytes()


def test_what_is_written_is_read_through_a_second_descriptor(mount: Mounted) -> None:
    reader = os.open(mount.path / "old", os.O_RDONLY)
    writer = os.open(mount.path / "old", os.O_WRONLY)

    os.pwrite(writer, b"NEW", 0)
    assert os.pread(reader, 100, 0) == b"NEW content"
    assert os.fstat(reader).st_size == 11
    os.pwrite(writer, b"!" * 5000, 11)
    assert os.fstat(reader).st_size == 5011
    os.close(writer)

    assert os.pread(reader, 3, 0) == b"NEW"
    os.close(reader)


def test_the_size_of_an_open_file_is_the_present_one(mount: Mounted) -> None:
    with open(mount.path / "new", "wb", buffering=0) as file:
        for size in (10, 5000, 200_000):
            file.write(bytes(size - file.tell()))

            assert os.fstat(file.fileno()).st_size == size
            assert os.stat(mount.path / "new").st_size == size
            listed = {entry.name: entry.stat().st_size for entry in os.scandir(mount.path)}
            assert listed["new"] == size


def test_appended_bytes_go_to_the_end(mount: Mounted) -> None:
    first = os.open(mount.path / "old", os.O_WRONLY | os.O_APPEND)
    second = os.open(mount.path / "old", os.O_WRONLY | os.O_APPEND)

    for descriptor, data in ((first, b" 1"), (second, b" 2"), (first, b" 3")):
        os.write(descriptor, data)
    os.close(first)
    os.close(second)

    assert (mount.path / "old").read_bytes() == b"old content 1 2 3"


def test_opening_truncates_and_creates_as_asked(mount: Mounted) -> None:
    old, new = mount.path / "old", mount.path / "new"

    assert refusal(lambda: os.open(old, os.O_CREAT | os.O_EXCL | os.O_WRONLY)) == errno.EEXIST
    assert refusal(lambda: os.open(new, os.O_WRONLY)) == errno.ENOENT
    os.close(os.open(old, os.O_CREAT | os.O_WRONLY))
    assert old.read_bytes() == b"old content"
    os.close(os.open(old, os.O_TRUNC | os.O_WRONLY))
    assert old.read_bytes() == b""
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    assert stat.S_IMODE(new.stat().st_mode) == 0o600


def test_files_are_truncated_by_path_and_by_descriptor(mount: Mounted) -> None:
    old = mount.path / "old"

    os.truncate(old, 3)
    assert old.read_bytes() == b"old"
    with old.open("r+b") as file:
        os.ftruncate(file.fileno(), 5)
        assert os.pread(file.fileno(), 10, 0) == b"old\0\0"
        os.ftruncate(file.fileno(), 1)
    assert old.read_bytes() == b"o"


def test_mapped_memory_is_written(mount: Mounted) -> None:
    with (mount.path / "old").open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[:3] = b"MAP"
        view.flush()

    assert (mount.path / "old").read_bytes() == b"MAP content"


def test_every_duplicated_descriptor_flushes(counted: Mounted) -> None:
    first = os.open(counted.path / "new", os.O_CREAT | os.O_WRONLY)
    second = os.dup(first)
    os.write(first, b"x")

    os.close(first)
    flushed = counted.happened().count("flush new")
    os.close(second)

    assert flushed == 1
    assert counted.happened().count("flush new") == 2
    counted.wait_for(lambda: counted.happened().count("release new") == 1)


def test_fsync_reaches_files_and_directories(counted: Mounted) -> None:
    with open(counted.path / "new", "wb", buffering=0) as file:
        file.write(b"x")
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
    directory = os.open(counted.path / "dir", os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)

    assert counted.happened().count("fsync new") == 2
    assert "synchronize dir" in counted.happened()


def test_a_renamed_file_goes_on_being_read_and_written(mount: Mounted) -> None:
    with open(mount.path / "old", "r+b", buffering=0) as file:
        os.rename(mount.path / "old", mount.path / "dir" / "moved")
        file.write(b"NEW")

        assert os.fstat(file.fileno()).st_size == 11
        assert not (mount.path / "old").exists()
    assert (mount.path / "dir" / "moved").read_bytes() == b"NEW content"


def test_a_renamed_directory_keeps_all_that_is_in_it(mount: Mounted) -> None:
    deep = mount.path / "dir" / "sub" / "deep"
    before = deep.stat().st_ino
    inside = os.open(mount.path / "dir" / "sub", os.O_RDONLY)

    os.rename(mount.path / "dir", mount.path / "other")

    assert not deep.exists()
    moved = mount.path / "other" / "sub" / "deep"
    assert moved.stat().st_ino == before
    assert moved.read_bytes() == b"deep"
    assert os.listdir(inside) == ["deep"]
    with open(moved, "ab") as file:
        file.write(b"er")
    assert moved.read_bytes() == b"deeper"
    os.close(inside)


def test_rename_replaces_only_what_it_may(mount: Mounted) -> None:
    old, directory = mount.path / "old", mount.path / "dir"
    new = mount.path / "new"
    new.write_bytes(b"new")

    assert refusal(lambda: rename(new, old, RENAME_NOREPLACE)) == errno.EEXIST
    assert refusal(lambda: rename(new, old, RENAME_EXCHANGE)) == errno.EINVAL
    replaced = os.open(old, os.O_RDONLY)
    os.rename(new, old)
    assert old.read_bytes() == b"new"
    assert os.pread(replaced, 100, 0) == b"old content"
    os.close(replaced)
    (mount.path / "empty").mkdir()
    assert refusal(lambda: os.rename(mount.path / "empty", directory)) == errno.ENOTEMPTY
    rename(old, mount.path / "free", RENAME_NOREPLACE)
    assert (mount.path / "free").read_bytes() == b"new"


def test_an_unlinked_file_lives_while_it_is_open(mount: Mounted) -> None:
    reader = os.open(mount.path / "old", os.O_RDONLY)
    writer = os.open(mount.path / "new", os.O_CREAT | os.O_RDWR)
    other = os.open(mount.path / "new", os.O_RDONLY)
    os.write(writer, b"before")

    os.unlink(mount.path / "old")
    os.unlink(mount.path / "new")

    assert os.listdir(mount.path) == ["dir"]
    assert os.pread(reader, 100, 0) == b"old content"
    os.write(writer, b" and after")
    assert os.pread(writer, 100, 0) == b"before and after"
    assert os.fstat(writer).st_size == 16
    assert os.fstat(writer).st_nlink == 0
    os.fchmod(writer, 0o600)
    assert stat.S_IMODE(os.fstat(writer).st_mode) == 0o600
    os.close(writer)
    assert os.pread(other, 100, 0) == b"before and after"
    os.fchmod(reader, 0o640)
    os.utime(reader, ns=(1, 2))
    seen = os.fstat(reader)
    assert (stat.S_IMODE(seen.st_mode), seen.st_atime_ns, seen.st_mtime_ns) == (0o640, 1, 2)
    assert (seen.st_size, seen.st_nlink) == (11, 0)
    os.close(reader)
    os.close(other)


def test_a_removed_directory_lives_while_it_is_open(mount: Mounted) -> None:
    (mount.path / "new").mkdir()
    directory = os.open(mount.path / "new", os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(mount.path / "new")

    os.fchmod(directory, 0o700)
    assert stat.S_IMODE(os.fstat(directory).st_mode) == 0o700
    assert os.listdir(directory) == []
    assert refusal(lambda: os.mkdir("below", dir_fd=directory)) == errno.ENOENT
    os.close(directory)


def test_directories_are_made_and_removed(mount: Mounted) -> None:
    new = mount.path / "new"

    new.mkdir(mode=0o750)
    assert stat.S_IMODE(new.stat().st_mode) == 0o750
    assert refusal(new.mkdir) == errno.EEXIST
    assert refusal((mount.path / "dir").rmdir) == errno.ENOTEMPTY
    assert refusal((mount.path / "dir").unlink) == errno.EISDIR
    assert refusal((mount.path / "old").rmdir) == errno.ENOTDIR
    new.rmdir()
    assert not new.exists()


def test_symlinks_are_made_and_hard_links_and_devices_refused(mount: Mounted) -> None:
    os.symlink("dir/inner", mount.path / "link")

    assert (mount.path / "link").read_bytes() == b"inner"
    assert refusal(lambda: os.link(mount.path / "old", mount.path / "hard")) == errno.EPERM
    assert refusal(lambda: os.mkfifo(mount.path / "pipe")) == errno.EPERM
    os.mknod(mount.path / "plain", stat.S_IFREG | 0o600)
    assert (mount.path / "plain").stat().st_size == 0


def test_mode_owner_and_times_are_set_and_read_back(mount: Mounted) -> None:
    old = mount.path / "old"
    times = (1_234_567_890_123_456_789, -5_000_000_001)

    old.chmod(0o4750)
    os.utime(old, ns=times)
    found = old.stat()
    assert stat.S_IMODE(found.st_mode) == 0o4750
    assert (found.st_atime_ns, found.st_mtime_ns) == times
    os.chown(old, 11, 22)
    found = old.stat()
    assert (found.st_uid, found.st_gid) == (11, 22)
    assert stat.S_IMODE(found.st_mode) == 0o750  # chown takes set-id bits away
    os.utime(mount.path / "dir", ns=(1, 2))
    assert (mount.path / "dir").stat().st_mtime_ns == 2


def test_what_is_made_in_a_set_group_directory_has_its_group(mount: Mounted) -> None:
    os.chown(mount.path / "dir", 0, 77)
    (mount.path / "dir").chmod(0o2775)

    (mount.path / "dir" / "file").touch()
    (mount.path / "dir" / "below").mkdir()

    assert (mount.path / "dir" / "file").stat().st_gid == 77
    assert (mount.path / "dir" / "below").stat().st_gid == 77
    assert (mount.path / "dir" / "below").stat().st_mode & stat.S_ISGID


def test_a_repository_alone_is_asked_for_xattrs_once(counted: Mounted) -> None:
    for number in range(50):
        (counted.path / f"{number}").write_bytes(b"x")

    assert refusal(lambda: os.listxattr(counted.path / "old")) == errno.EOPNOTSUPP
    assert not any(call.startswith("xattrs") for call in counted.happened())


def test_space_and_the_longest_name_are_told(mount: Mounted) -> None:
    found = os.statvfs(mount.path)

    assert found.f_frsize * found.f_bavail >= 2**39
    assert found.f_blocks >= found.f_bavail
    assert found.f_namemax == 255
    assert refusal(lambda: (mount.path / ("n" * 256)).touch()) == errno.ENAMETOOLONG
    assert refusal(lambda: (mount.path / ("n" * 256)).stat()) in (errno.ENOENT, errno.ENAMETOOLONG)
    (mount.path / ("n" * 255)).touch()


def test_locks_hold_among_the_processes_of_a_mount(mount: Mounted) -> None:
    program = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with (mount.path / "old").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        locked_out = subprocess.run(
            [sys.executable, "-c", program, mount.path / "old"], stderr=subprocess.DEVNULL
        )

    assert locked_out.returncode != 0


def test_merged_writes_arrive_whole(tmp_path: Path) -> None:
    with mounted(writable, tmp_path, writeback=True) as mount:
        with open(mount.path / "new", "wb", buffering=0) as file:
            for number in range(1000):
                file.write(number.to_bytes(2) * 50)
            assert os.fstat(file.fileno()).st_size == 100_000
        with open(mount.path / "new", "ab", buffering=0) as file:
            file.write(b"end")

        content = (mount.path / "new").read_bytes()
        assert content[:-3] == b"".join(number.to_bytes(2) * 50 for number in range(1000))
        assert content[-3:] == b"end"
        assert mount.happened().count("write new") < 100


def test_what_was_removed_is_no_fault_of_what_is_written(tmp_path: Path) -> None:
    """Where writes are merged, the kernel sends the times of what was removed."""
    with mounted(writable, tmp_path, writeback=True) as mount:
        (mount.path / "new").write_bytes(b"written and closed")
        (mount.path / "newer").write_bytes(b"replaces another")
        os.unlink(mount.path / "new")
        os.replace(mount.path / "newer", mount.path / "old")

        subprocess.run(["sync", "--file-system", mount.path], check=True)


class Overtaken(RepositoryTree):
    """A tree in which a rename is always a moment quicker than who opens the file it replaces."""

    rename_through_the_mount: Callable[[], None] | None = None

    async def _be_overtaken(self) -> None:
        rename, self.rename_through_the_mount = self.rename_through_the_mount, None
        if rename is not None:
            await trio.to_thread.run_sync(rename)

    @asynccontextmanager
    async def open(self, file: Entry) -> AsyncIterator[Source]:
        await self._be_overtaken()
        async with super().open(file) as source:
            yield source

    async def open_for_writing(self, file: Entry, *, truncate: bool) -> RepositoryFile:
        await self._be_overtaken()
        return await super().open_for_writing(file, truncate=truncate)


@asynccontextmanager
async def overtaken(home: Path, happened: Callable[[str, bytes], None]) -> AsyncIterator[Tree]:
    config = RepositoryConfig(name="store", url=f"file://{home}/store")
    places = places_of(config, {name: str(home / name) for name in PLACES})
    async with open_repository(config, places, None, writable=True) as opened:
        tree = Overtaken(opened)
        tree.rename_through_the_mount = partial(os.rename, home / "mnt/new", home / "mnt/old")
        yield tree


@pytest.mark.parametrize("how", [os.O_RDONLY, os.O_RDWR])
def test_what_a_rename_replaced_is_not_taken_for_what_replaced_it(tmp_path: Path, how: int) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "old").write_bytes(b"the longer old content")
    (tmp_path / "store" / "new").write_bytes(b"the new")
    with mounted(partial(overtaken, tmp_path), tmp_path, writeback=True) as mount:
        file = os.open(mount.path / "old", how)
        assert os.path.samestat(os.fstat(file), os.stat(mount.path / "old"))
        if how == os.O_RDWR:
            os.pwrite(file, b"end", 30)
        os.close(file)

        seen, stored = mount.path / "old", tmp_path / "store" / "old"
        assert os.listdir(mount.path) == ["old"]
        assert seen.stat().st_size == stored.stat().st_size
        assert seen.read_bytes() == stored.read_bytes()


def raced(happened: Callable[[str, bytes], None]) -> Tree:
    """A tree in which somebody else is always a moment quicker to create."""
    tree = DictTree()
    tree.happened = happened

    async def hinder(verb: str, name: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if verb == "create":
            tree.add_file(name.decode(), b"the longer content of somebody else")

    tree.hinder = hinder
    return tree


def test_what_somebody_made_a_moment_before_is_truncated_all_the_same(tmp_path: Path) -> None:
    with mounted(raced, tmp_path) as mount:
        (mount.path / "file").write_bytes(b"short")

        assert (mount.path / "file").read_bytes() == b"short"

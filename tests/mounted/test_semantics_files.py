"""The bytes of files, as docs/semantics.md has them."""

import ctypes
import errno
import fcntl
import mmap
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest
from support.mounting import Mounted, mounted
from support.repositories import on_disk, shown
from support.syscalls import assert_same, refusal
from support.writing import SMALL, opened

from backgate.fs.tree import Tree
from backgate.gateway.provider import Abilities
from backgate.gateway.providers.memory import Memory

pytestmark = [pytest.mark.mounted, pytest.mark.slow]


def test_truncating_follows_the_rules_of_a_local_file_system(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        write f 0123456789
        stamp f
        truncate f 5
        moved f
        read f
        stamp f
        truncate f 5
        moved f
        truncate f 8
        stat f size
        read f
        truncate f -1
        truncate f 999999999999999999
        truncate missing 3
        mkdir d
        truncate d 3
        truncate f/x 3
        truncate n*256 3
        chown f 65534 65534
        chmod f 0400
        as 65534 truncate f 3
        as 65533 truncate f 3
        chmod f 0200
        as 65534 truncate f 3
        stat f size
        hold f RDWR
        stamp f
        ftruncate f 3
        moved f
        ftruncate f 1
        fread f
        ftruncate f -1
        hold d RDONLY
        ftruncate d 3
        symlink loop1 loop2
        symlink loop2 loop1
        truncate loop1 1
        """,
    )


@contextmanager
def held(path: Path, flags: int) -> Iterator[int]:
    """Have `path` open."""
    descriptor = os.open(path, flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_a_hole_reads_as_zeros(either: Path) -> None:
    with held(either / "file", os.O_RDWR | os.O_CREAT) as file:
        os.pwrite(file, b"end", 20_000_000)

        assert os.pread(file, 10, 10_000_000) == bytes(10)
    assert (either / "file").read_bytes() == bytes(20_000_000) + b"end"


def test_a_file_is_as_long_as_the_store_allows(plain: Path) -> None:
    (plain / "file").touch()

    assert refusal(lambda: os.truncate(plain / "file", 10**17)) == errno.EFBIG
    with held(plain / "file", os.O_RDWR) as file:
        assert refusal(lambda: os.pwrite(file, b"x", 10**17)) == errno.EFBIG


def test_what_is_not_written_of_a_stored_file_is_not_fetched(tmp_path: Path) -> None:
    size = 20_000_000

    class Asked(Memory):
        """A store that tells of each GET."""

        happened: Callable[[str, bytes], None]

        def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
            self.happened("get", f"{stop - start}".encode())
            return super().get(key, start, stop, etag)

    @asynccontextmanager
    async def made(happened: Callable[[str, bytes], None]) -> AsyncIterator[Tree]:
        store = Asked("memory:test", Abilities(limits=SMALL))
        store.happened = happened
        store.put("file", bytes(size))
        async with opened(tmp_path / "gateway", store) as repository:
            yield repository.tree

    with mounted(made, tmp_path) as mount:
        with held(mount.path / "file", os.O_WRONLY) as file:
            os.pwrite(file, b"new", 1_000_000)
        fetched = sum(int(line.split()[1]) for line in mount.happened())
        content = (mount.path / "file").read_bytes()

    assert fetched < size // 10
    assert content == bytes(1_000_000) + b"new" + bytes(size - 1_000_003)


def test_an_object_that_is_replaced_while_it_is_read_is_an_error_and_no_mixture(
    plain: Path, plain_mount: Mounted
) -> None:
    stored = plain_mount.path.parent / "store" / plain.name / "file"
    (plain / "file").write_bytes(b"old" * 10_000_000)

    with held(plain / "file", os.O_RDONLY | os.O_DIRECT) as file:
        assert os.pread(file, 3, 0) == b"old"
        stored.with_name("new").write_bytes(b"new" * 10_000_000)
        stored.with_name("new").replace(stored)
        found = set()
        for offset in range(0, 30_000_000, 3_000_000):
            try:
                found.add(os.pread(file, 3, offset))
            except OSError as error:
                found.add(os.strerror(error.errno or 0).encode())

    assert found == {b"old", os.strerror(errno.ESTALE).encode()}
    with held(plain / "file", os.O_RDONLY | os.O_DIRECT) as file:
        assert os.pread(file, 3, 0) == b"new"


def test_fallocate_is_refused_and_posix_fallocate_writes_zeros(plain: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with held(plain / "file", os.O_RDWR | os.O_CREAT) as file:
        refused = libc.fallocate(file, 0, ctypes.c_int64(0), ctypes.c_int64(1000))

        assert (refused, ctypes.get_errno()) == (-1, errno.EOPNOTSUPP)
        os.posix_fallocate(file, 0, 100_000)
        assert os.fstat(file).st_size == 100_000
    assert (plain / "file").read_bytes() == bytes(100_000)


def test_copy_file_range_reads_and_writes(plain: Path) -> None:
    (plain / "old").write_bytes(b"0123456789" * 100_000)
    with (
        held(plain / "old", os.O_RDONLY) as source,
        held(plain / "new", os.O_WRONLY | os.O_CREAT) as target,
    ):
        copied = 0
        while copied < 1_000_000:
            copied += os.copy_file_range(source, target, 1_000_000 - copied)

    assert (plain / "new").read_bytes() == (plain / "old").read_bytes()


def test_a_file_has_no_holes_that_lseek_would_find(plain: Path) -> None:
    with held(plain / "file", os.O_RDWR | os.O_CREAT) as file:
        os.ftruncate(file, 10_000_000)
        os.pwrite(file, b"data", 5_000_000)

        assert os.lseek(file, 0, os.SEEK_DATA) == 0
        assert os.lseek(file, 0, os.SEEK_HOLE) == 10_000_000
        assert refusal(lambda: os.lseek(file, 10_000_000, os.SEEK_DATA)) == errno.ENXIO


def test_nameless_files_and_clones_are_refused(plain: Path) -> None:
    ficlone = 0x40049409  # linux/fs.h
    (plain / "old").write_bytes(b"content")

    assert refusal(lambda: os.open(plain, os.O_TMPFILE | os.O_RDWR)) == errno.EOPNOTSUPP
    with (
        held(plain / "old", os.O_RDONLY) as old,
        held(plain / "new", os.O_RDWR | os.O_CREAT) as new,
    ):
        assert refusal(lambda: fcntl.ioctl(new, ficlone, old)) in (errno.EOPNOTSUPP, errno.ENOTTY)


def test_direct_reads_and_writes_are_taken(either: Path) -> None:
    page = mmap.mmap(-1, 8192)
    page[:] = b"direct!\n" * 1024
    with held(either / "file", os.O_RDWR | os.O_CREAT | os.O_DIRECT) as file:
        assert os.pwrite(file, page, 4096) == 8192

        assert os.pread(file, 8, 4096) == b"direct!\n"
    assert (either / "file").read_bytes() == bytes(4096) + bytes(page)


def test_reading_does_not_move_the_time_of_access(either: Path) -> None:
    (either / "file").write_bytes(b"content")
    os.utime(either / "file", ns=(5, 7))

    assert (either / "file").read_bytes() == b"content"
    assert (either / "file").stat().st_atime_ns == 5


# Locks a byte, or all, of a file, if nobody else has; prints what came of it.
LOCKING = """
import fcntl, sys
with open(sys.argv[1], "r+") as file:
    try:
        if sys.argv[2] == "flock":
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))
        print("locked")
    except BlockingIOError:
        print("held by others")
"""


def lock(path: Path, what: str) -> str:
    """Try to lock in another process."""
    command = [sys.executable, "-c", LOCKING, str(path), what]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_flock_and_fcntl_locks_hold_among_the_processes_of_a_mount(plain: Path) -> None:
    (plain / "file").write_bytes(b"0123456789")
    with (plain / "file").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert lock(plain / "file", "flock") == "held by others"
        fcntl.flock(file, fcntl.LOCK_UN)
        assert lock(plain / "file", "flock") == "locked"
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 5)
        assert lock(plain / "file", "5") == "held by others"
        assert lock(plain / "file", "6") == "locked"
    assert lock(plain / "file", "5") == "locked"


def test_locks_of_another_gateway_are_not_seen(tmp_path: Path) -> None:
    config = on_disk(tmp_path, writers="shared")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "file").write_bytes(b"content")
    homes = tmp_path / "one", tmp_path / "two"
    for home in homes:
        home.mkdir()
    first, second = (partial(shown, home, config, "repository") for home in homes)

    with (
        mounted(first, homes[0]) as one,
        mounted(second, homes[1]) as two,
        (one.path / "file").open("r+") as file,
    ):
        fcntl.flock(file, fcntl.LOCK_EX)

        assert lock(two.path / "file", "flock") == "locked"

"""A disk under the index that is full, gone or read-only: a clear state, and no wrong answer."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from backgate.gateway.errors import NotFound, StoreError
from backgate.gateway.metadata.cache import Metadata, open_metadata
from backgate.gateway.metadata.disk import RESERVE, RESERVED, Reserve
from backgate.gateway.metadata.local import RETURN
from backgate.gateway.providers.memory import Memory
from backgate.gateway.store import ObjectStore
from backgate.gateway.units import MIB

from .conftest import trio_time_ns

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

FILLER = "filler"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 24 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def open_on(disk: Path, store: ObjectStore, *, crawls: bool = False):  # type: ignore[no-untyped-def]
    return open_metadata(
        store,
        disk / "metadata",
        writers="exclusive",
        max_age=60,
        crawls=crawls,
        now_ns=trio_time_ns,
    )


def fill(disk: Path) -> None:
    with (disk / FILLER).open("wb", buffering=0) as file:
        for size in (MIB, 4096):
            while True:
                try:
                    file.write(bytes(size))
                except OSError:
                    break


def make_room(disk: Path) -> None:
    (disk / FILLER).unlink()


async def names(metadata: Metadata, prefix: str) -> list[str]:
    return [name for name, _ in (await metadata.children(prefix))[0]]


async def test_own_writes_go_into_the_room_kept_back_while_listings_wait(
    disk: Path,
    memory: Memory,
    store: ObjectStore,
    autojump_clock: trio.abc.Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in range(300):
        memory.put(f"old/{number:03}", b"1")
    async with open_on(disk, store) as metadata:
        await metadata.complete()
        await trio.sleep(2)
        held = (disk / "metadata" / RESERVE).stat().st_size
        fill(disk)
        for number in range(30_000):
            memory.put(f"new/{number:05}", b"1")
        with pytest.raises(StoreError, match="cannot be written: database or disk is full"):
            await metadata.refresh()
        full = await metadata.status()
        for number in range(50):
            await metadata.stored(memory.put(f"own/{number:02}", b"1"), None)
        await metadata.removed(["old/000"])
        memory.delete(["old/000"])
        own = await names(metadata, "own/")
        old = len(await names(metadata, "old/"))

        make_room(disk)
        await trio.sleep(RETURN + 2)
        await metadata.refresh()
        again = await metadata.status()

    assert held == RESERVED
    assert full.index_trouble == "database or disk is full"
    assert "the disk is of no use" in caplog.text
    assert (len(own), old) == (50, 299)
    assert (again.index_trouble, again.objects) == (None, 30_000 + 50 + 299)


async def test_own_writes_are_known_when_no_room_is_left_at_all(
    disk: Path, memory: Memory, store: ObjectStore, autojump_clock: trio.abc.Clock
) -> None:
    async with open_on(disk, store) as metadata:
        await metadata.complete()
        await trio.sleep(2)
        fill(disk)
        for number in range(4000):
            await metadata.stored(memory.put(f"own/{number:04}", b"1"), None)
            if number % 500 == 0:
                fill_again(disk)
        memory.delete(["own/0000"])
        await metadata.removed(["own/0000"])
        trouble, path = (await metadata.status()).index_trouble, metadata._index.path
        last = await metadata.look_up("own/3999")
        with pytest.raises(NotFound):
            await metadata.look_up("own/0000")
        found = await metadata.below("own/")

        for name in os.listdir(disk):
            if name.startswith(FILLER):
                (disk / name).unlink()
        await trio.sleep(RETURN + 2)
        await metadata.complete()
        status = await metadata.status()
        home = metadata._index.path

    assert trouble is not None
    assert path.parent != disk / "metadata"
    assert not path.exists()
    assert last.info.size == 1
    assert len(found) == 1000
    assert (status.index_trouble, status.objects) == (None, 3999)
    assert home.parent == disk / "metadata"


async def test_a_mount_comes_up_on_a_full_disk_and_answers_what_it_knows(
    disk: Path, memory: Memory, store: ObjectStore, autojump_clock: trio.abc.Clock
) -> None:
    memory.put("d/x", b"1")
    async with open_on(disk, store) as metadata:
        await metadata.complete()
        await trio.sleep(2)
    fill(disk)
    memory.requests.clear()

    async with open_on(disk, store) as metadata:
        shown = await names(metadata, "d/")

    assert shown == ["x"]
    assert memory.requests == []


async def test_a_mount_comes_up_where_nothing_can_be_written(
    disk: Path, memory: Memory, store: ObjectStore, autojump_clock: trio.abc.Clock
) -> None:
    memory.put("d/x", b"1")
    async with open_on(disk, store) as metadata:
        await metadata.complete()
    fill(disk)
    (disk / "metadata" / RESERVE).unlink(missing_ok=True)
    fill_again(disk)

    async with open_on(disk, store) as metadata:
        await metadata.stored(memory.put("d/y", b"1"), None)
        shown = await names(metadata, "d/")

    assert shown == ["x", "y"]


async def test_a_cache_that_is_deleted_under_a_mount_is_made_anew(
    disk: Path, memory: Memory, store: ObjectStore, autojump_clock: trio.abc.Clock
) -> None:
    memory.put("d/x", b"1")
    async with open_on(disk, store, crawls=True) as metadata:
        await metadata.complete()
        shutil.rmtree(disk / "metadata")
        await trio.sleep(5)
        await metadata.stored(memory.put("d/y", b"1"), None)
        shown = await names(metadata, "d/")
        trouble = (await metadata.status()).index_trouble
        (disk / "metadata").mkdir()
        await trio.sleep(RETURN + 60)
        after = await names(metadata, "d/")
        status = await metadata.status()

    assert shown == after == ["x", "y"]
    assert trouble is not None
    assert status.index_trouble is None


def fill_again(disk: Path) -> None:
    """Take what has become free since."""
    number = len(os.listdir(disk))
    with (disk / f"{FILLER}{number}").open("wb", buffering=0) as file:
        while True:
            try:
                if not file.write(bytes(4096)):
                    break
            except OSError:
                break


def test_room_is_kept_back_only_where_there_is_some(disk: Path) -> None:
    reserve = Reserve(disk)
    first = reserve.hold()
    reserve.release()
    fill(disk)

    assert first
    assert not reserve.hold()
    assert not reserve.is_held
    assert not reserve.has_room
    assert not reserve.release()

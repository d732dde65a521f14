import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from backgate.gateway.errors import NotFound
from backgate.gateway.metadata.local import FILE
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.providers.memory import Memory

from .conftest import OpenCache

INFO = ObjectInfo("kept", 4, 1_700_000_000_000_000_000, "etag")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


class Neighbour:
    """Another process that has the same index open."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        assert self._hear() == "open"

    def tell(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        assert self._hear() == "done"

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def neighbour(directory: Path) -> Iterator[Neighbour]:
    command = [sys.executable, str(Path(__file__).with_name("neighbour.py")), str(directory)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Neighbour(process)
        finally:
            process.kill()


async def test_what_was_known_is_known_after_a_clean_restart(
    open_cache: OpenCache, memory: Memory
) -> None:
    memory.put("a/b", b"1")
    async with open_cache() as metadata:
        await metadata.children("a/")
        await metadata.stored(INFO, None)
    memory.requests.clear()

    async with open_cache() as metadata:
        children, _ = await metadata.children("a/")
        kept = await metadata.look_up("kept")

    assert [name for name, _ in children] == ["b"]
    assert kept.info == INFO
    assert memory.requests == []


@pytest.mark.parametrize("where", [0, 4096, -4096])
async def test_a_file_overwritten_with_random_bytes_is_replaced(
    open_cache: OpenCache,
    memory: Memory,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    where: int,
) -> None:
    for number in range(200):
        memory.put(f"d/{number:03}", b"1")
    async with open_cache() as metadata:
        await metadata.complete()
    with open(tmp_path / FILE, "r+b") as file:
        file.seek(where, os.SEEK_SET if where >= 0 else os.SEEK_END)
        file.write(os.urandom(4096))

    async with open_cache() as metadata:
        children, _ = await metadata.children("d/")
        await metadata.complete()
        status = await metadata.status()

    assert [name for name, _ in children] == [f"{number:03}" for number in range(200)]
    assert status.objects == 200
    assert "starting an empty index" in caplog.text


@pytest.mark.slow
async def test_damage_that_shows_while_the_index_is_open_is_mended(
    open_cache: OpenCache, memory: Memory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2000):
        memory.put(f"d/{number:05}", b"1")
    async with open_cache() as metadata:
        await metadata.complete()
    async with open_cache() as metadata:
        size = (tmp_path / FILE).stat().st_size
        with open(tmp_path / FILE, "r+b") as file:
            file.seek(4096)
            file.write(os.urandom(size - 4096))

        names = []
        cursor: str | None = ""
        while cursor is not None:
            children, cursor = await metadata.children("d/", cursor or None)
            names += [name for name, _ in children]
        await metadata.stored(INFO, None)
        kept = await metadata.look_up("kept")

    assert names == [f"{number:05}" for number in range(2000)]
    assert kept.info == INFO
    assert "starting an empty index" in caplog.text


async def test_an_index_of_another_version_is_made_anew(
    open_cache: OpenCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_cache() as metadata:
        await metadata.stored(INFO, None)
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("PRAGMA user_version = 99")
    db.close()

    async with open_cache() as metadata:
        with pytest.raises(NotFound):
            await metadata.look_up("kept")

    assert "version 99" in caplog.text


@pytest.mark.slow
async def test_two_processes_see_each_others_changes(
    open_cache: OpenCache, memory: Memory, tmp_path: Path
) -> None:
    async with open_cache() as metadata:
        await metadata.complete()
        with neighbour(tmp_path) as other:
            generation = metadata.generation
            other.tell("stored d/x")
            found = await metadata.look_up("d/x")
            with trio.fail_after(120):
                await metadata.changed_since(generation)
            other.tell("removed d/x")

            with pytest.raises(NotFound):
                await metadata.look_up("d/x")

    assert found.info.etag == "etag"
    assert memory.requests == [("page", "")]  # nothing but the first listing


@pytest.mark.slow
async def test_after_kill_9_what_was_acknowledged_is_known_and_a_pass_is_due(
    open_cache: OpenCache, memory: Memory, tmp_path: Path
) -> None:
    async with open_cache() as metadata:
        await metadata.complete()
    with neighbour(tmp_path) as other:
        other.tell("stored a/x")
        other.kill()
    memory.requests.clear()

    async with open_cache() as metadata:
        children, _ = await metadata.children("a/")
        asked = list(memory.requests)
        progress = await metadata.status()

    assert [name for name, _ in children] == ["x"]
    assert asked == []
    assert progress.is_complete
    assert progress.coverage is not None
    assert progress.coverage < 1


@pytest.mark.slow
async def test_after_a_power_loss_nothing_counts_as_complete(
    open_cache: OpenCache, memory: Memory, tmp_path: Path
) -> None:
    memory.put("a/x", b"1")
    async with open_cache() as metadata:
        await metadata.complete()
    with neighbour(tmp_path) as other:
        other.tell("stored a/y")
        other.kill()
    db = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    db.execute("UPDATE opened SET boot = 'before'")
    db.close()
    memory.requests.clear()

    async with open_cache() as metadata:
        known = await metadata.look_up("a/y")  # it may be read, as long as the store has it
        children, _ = await metadata.children("a/")

    assert known.info.size == 1
    assert [name for name, _ in children] == ["x"]
    assert memory.requests == [("page", "a/")]


@pytest.mark.slow
async def test_a_reader_that_was_killed_leaves_no_doubt(
    open_cache: OpenCache, memory: Memory, tmp_path: Path
) -> None:
    async with open_cache() as metadata:
        await metadata.complete()
    with neighbour(tmp_path) as other:
        other.kill()
    db = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    db.execute("UPDATE opened SET boot = 'before'")
    db.close()

    async with open_cache() as metadata:
        status = await metadata.status()

    assert (status.is_complete, status.coverage) == (True, 1.0)


async def test_an_index_that_was_deleted_is_made_again_and_nothing_is_complete(
    open_cache: OpenCache, memory: Memory, tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with open_cache() as metadata:
        await metadata.children("")
        memory.put("new", b"1")
        for path in tmp_path.glob(f"{FILE}*"):
            path.unlink()
        await trio.sleep(2)

        children, _ = await metadata.children("")

    assert [name for name, _ in children] == ["new"]

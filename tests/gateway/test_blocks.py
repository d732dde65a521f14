"""`gateway/blocks.py`: blocks in memory and on disk, and a cache that fails is only slow."""

import os
import sys
from pathlib import Path

import pytest
import trio
from support.full_disk import full_disk

from backgate.gateway import blocks as module
from backgate.gateway.blocks import BLOCK, QUEUE, WINDOW, BlockCache, Version, open_blocks
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.units import MIB

LIMIT = 32 * MIB


def version(name: str = "object", size: int = 1000 * BLOCK) -> Version:
    return Version.of("memory:test", ObjectInfo(name, size, 0, "etag"))


def block(seed: int) -> bytes:
    return seed.to_bytes(4, "little") * (BLOCK // 4)


def on_disk(cache: BlockCache, of: Version, first: int, stop: int) -> bool:
    return all(cache.has(of, first, stop))


async def test_a_run_that_was_put_is_in_memory_at_once(tmp_path: Path) -> None:
    with open_blocks(tmp_path, LIMIT) as cache:
        cache.put(version(), 2, block(2) + block(3))

        run = cache.recent(version(), 3)

        assert run is not None
        assert (run.first, run.stop, bytes(run.data)) == (2, 4, block(2) + block(3))
        assert cache.recent(version(), 4) is None
        assert cache.recent(version("other"), 3) is None


async def test_a_run_that_was_put_gets_to_disk(tmp_path: Path) -> None:
    with open_blocks(tmp_path, LIMIT) as cache:
        cache.put(version(), 2, block(2) + block(3))
        cache.synchronize()

        assert cache.has(version(), 1, 5) == [False, True, True, False]

    with open_blocks(tmp_path, LIMIT) as cache:
        run = await cache.get(version(), 2, 10)
        assert run is not None
        assert (run.first, bytes(run.data)) == (2, block(2) + block(3))
        assert cache.recent(version(), 3) is run
        assert cache.status().hits == 2


async def test_what_is_not_on_disk_is_not_found(tmp_path: Path) -> None:
    with open_blocks(tmp_path, LIMIT) as cache:
        assert await cache.get(version(), 0, 3) is None


async def test_memory_holds_the_latest_runs_and_no_more_than_the_window() -> None:
    cache = BlockCache()
    long = bytes(8 * MIB)
    per_run = len(long) // BLOCK
    count = WINDOW // len(long) + 2

    for number in range(count):
        cache.put(version(), number * per_run, long)

    held = [cache.recent(version(), number * per_run) is not None for number in range(count)]
    assert held == [False, False] + [True] * (count - 2)


async def test_what_was_read_lately_stays_in_memory_longer() -> None:
    cache = BlockCache()
    long = bytes(8 * MIB)
    per_run = len(long) // BLOCK
    for number in range(WINDOW // len(long)):
        cache.put(version(), number * per_run, long)
    cache.recent(version(), 1)

    cache.put(version("other"), 0, long)

    assert cache.recent(version(), 0) is not None
    assert cache.recent(version(), per_run) is None


async def test_overlapping_runs_leave_no_trace_when_they_go() -> None:
    cache = BlockCache()
    cache.put(version(), 0, bytes(8 * MIB))
    cache.put(version(), 4, bytes(8 * MIB))
    for number in range(WINDOW // (8 * MIB)):
        cache.put(version("other"), number * 32, bytes(8 * MIB))

    assert all(cache.recent(version(), number) is None for number in range(40))


async def test_without_a_limit_there_is_only_memory(tmp_path: Path) -> None:
    with open_blocks(tmp_path / "cache", 0) as cache:
        cache.put(version(), 0, block(1))
        cache.synchronize()

        assert cache.has(version(), 0, 1) == [False]
        assert await cache.get(version(), 0, 1) is None
        assert cache.recent(version(), 0) is not None
        assert cache.status().limit == 0
    assert not (tmp_path / "cache").exists()


async def test_a_second_process_reads_without_the_disk(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
import trio
from backgate.gateway.blocks import open_blocks
async def main():
    with open_blocks(Path({str(tmp_path)!r}), {LIMIT}) as cache:
        print(cache.status().limit)
trio.run(main)
"""

    with open_blocks(tmp_path, LIMIT) as cache:
        assert cache.status().limit == LIMIT
        result = await trio.run_process(
            [sys.executable, "-c", code], capture_stdout=True, capture_stderr=True
        )

    assert (result.stdout, result.stderr) == (b"0\n", b"")


async def test_a_directory_that_cannot_be_made_costs_only_the_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")

    with open_blocks(tmp_path / "file" / "cache", LIMIT) as cache:
        cache.put(version(), 0, block(1))
        assert cache.recent(version(), 0) is not None

    assert "reading without" in caplog.text


async def test_the_directory_is_private(tmp_path: Path) -> None:
    with open_blocks(tmp_path / "blocks", LIMIT):
        assert (tmp_path / "blocks").stat().st_mode & 0o777 == 0o700


async def test_a_full_disk_pauses_caching_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_blocks(tmp_path, LIMIT) as cache:
        with full_disk(4096):
            for number in range(3):
                cache.put(version(), number, block(number))
            cache.synchronize()
            assert cache.recent(version(), 2) is not None
            assert cache.has(version(), 0, 3) == [False] * 3
            assert cache.status().dropped == 3 * BLOCK

        cache.put(version(), 5, block(5))  # the pause is not over
        cache.synchronize()
        assert cache.has(version(), 5, 6) == [False]

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "caching pauses" in caplog.text


async def test_caching_goes_on_when_the_disk_has_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with open_blocks(tmp_path, LIMIT) as cache:
        with full_disk(4096):
            cache.put(version(), 0, block(0))
            cache.synchronize()

        cache.put(version(), 0, block(0))
        cache.synchronize()

        assert on_disk(cache, version(), 0, 1)


async def test_a_stream_that_outran_the_disk_is_not_kept_but_short_reads_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = bytes(8 * MIB)
    per_run = len(long) // BLOCK
    with open_blocks(tmp_path, LIMIT) as cache:
        monkeypatch.setattr(module, "PACE", 1)  # byte per second
        for number in range(3):
            cache.put(version(), number * per_run, long)
        monkeypatch.setattr(module, "QUEUE", 1 << 30)  # there is room again

        cache.put(version(), 3 * per_run, long)
        cache.put(version("other"), 0, block(1))

        assert cache.status().dropped == 2 * len(long)
    with open_blocks(tmp_path, LIMIT) as cache:
        assert on_disk(cache, version("other"), 0, 1)
        assert not any(cache.has(version(), 3 * per_run, 4 * per_run))


async def test_a_full_queue_drops_and_never_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PACE", 1)  # byte per second: the first run keeps the disk busy
    long = os.urandom(8 * MIB)
    per_run = len(long) // BLOCK
    with open_blocks(tmp_path, LIMIT) as cache:
        for number in range(4):
            cache.put(version(), number * per_run, long)

        assert cache.status().dropped == 4 * len(long) - QUEUE
        assert cache.recent(version(), 3 * per_run) is not None

    with open_blocks(tmp_path, LIMIT) as cache:  # closing wrote what was waiting
        assert on_disk(cache, version(), 0, 2 * per_run)

"""Tests of `gateway/spool.py`, `recovery.py`, `backlog.py` and `leaving.py`: what is promised of a
file.
"""

import errno
import os
import threading
from pathlib import Path

import msgspec
import pytest
import trio
from support.writing import (
    CONFIG,
    PART,
    Open,
    create,
    entry_at,
    make_directory,
    memory,
    names,
    opened,
    place,
    read,
    rename,
    until,
    write,
)

from backgate.fs.tree import Changes
from backgate.gateway.errors import FileError, Refused, StoreError, Unreachable, UsageError
from backgate.gateway.pending import read_pending
from backgate.gateway.provider import NO_METADATA
from backgate.gateway.providers.memory import Fault
from backgate.gateway.records import HIDDEN
from backgate.gateway.recovery import open_spool
from backgate.gateway.threads import SMALL_PUT_THREADS

AN_HOUR = 3600.0  # seconds
PRESSED = msgspec.structs.replace(CONFIG, spool=16 * PART)
LAZY = msgspec.structs.replace(CONFIG, durability="journal")


def gone() -> Exception:
    return Unreachable("the store is gone")


def states(repository: Open) -> dict[str, str]:
    return {one.key: one.state for one in repository.spool.pending()}


async def test_a_small_file_is_one_put_and_stored_when_close_returns(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        await write(repository.tree, "a", b"content")

        assert repository.content("a") == b"content"
        assert [verb for verb, key in provider.requests if key == "a" and verb != "get"][-1:] == [
            "put"
        ]
        assert repository.spool.pending() == []
        assert repository.spool.used == 0


async def test_parts_leave_while_the_file_is_still_written(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        file = await create(repository, "long")
        for number in range(12):
            await file.write_at(number * PART, bytes([number]) * PART)
        await until(lambda: [verb for verb, _ in provider.requests].count("put_part") == 12)

        await file.flush()
        assert repository.content("long") == b"".join(bytes([n]) * PART for n in range(12))
        await file.release()


async def test_a_part_that_was_sent_and_overwritten_is_sent_again(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        file = await create(repository, "long")
        data = bytearray(os.urandom(10 * PART))
        await file.write_at(0, bytes(data))
        await until(lambda: ("put_part", "long") in provider.requests)
        await file.write_at(3 * PART + 5, b"changed")
        data[3 * PART + 5 : 3 * PART + 12] = b"changed"
        await file.flush()

        assert repository.content("long") == data
        await file.release()


async def test_a_flush_with_nothing_new_does_nothing(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        file = await create(repository, "a")
        await file.flush()
        before = len(provider.requests)

        await file.flush()
        await file.synchronize()
        await file.flush()

        assert len(provider.requests) == before
        await file.release()


async def test_parallel_closes_are_stored_in_parallel(tmp_path: Path) -> None:
    provider, gate = memory(), threading.Event()
    provider.faults = [Fault(verb="put", gate=gate)]
    async with opened(tmp_path, provider) as repository:
        async with trio.open_nursery() as nursery:
            for number in range(SMALL_PUT_THREADS):
                nursery.start_soon(write, repository.tree, f"file{number}", b"x" * 1000)
            await until(
                lambda: sum(verb == "put" for verb, _ in provider.requests) == SMALL_PUT_THREADS
            )
            gate.set()

        assert len(repository.stored_keys()) == SMALL_PUT_THREADS


async def test_a_file_that_cannot_be_stored_stays_and_is_tried_again(tmp_path: Path) -> None:
    provider = memory()
    provider.faults = [Fault(verb="put", key="a", error=gone)]
    async with opened(tmp_path, provider) as repository:
        with pytest.raises(Unreachable):
            await write(repository.tree, "a", b"content")
        (pending,) = repository.spool.pending()
        assert (pending.state, pending.size) == ("failed", 7)
        assert "gone" in pending.reason
        assert await read(repository.tree, "a") == b"content"

        provider.faults = []
        await repository.spool.drained()

        assert repository.content("a") == b"content"
        assert repository.spool.pending() == []


async def test_what_failed_is_tried_again_by_itself(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    provider = memory()
    provider.faults = [Fault(verb="put", key="a", times=2, error=gone)]
    async with opened(tmp_path, provider) as repository:
        with pytest.raises(Unreachable):
            await write(repository.tree, "a", b"content")

        with trio.fail_after(100_000):  # the clock jumps while a thread waits for the disk
            while not repository.stored_keys():  # noqa: ASYNC110 - nobody is told
                await trio.sleep(10)

        assert repository.content("a") == b"content"


async def test_what_failed_survives_a_crash(tmp_path: Path) -> None:
    provider = memory()
    provider.faults = [Fault(verb="put", key="a", error=lambda: Refused("forbidden"))]
    async with opened(tmp_path, provider) as repository:
        with pytest.raises(Refused):
            await write(repository.tree, "a", b"content")
    listed = read_pending(tmp_path / "spool", [])
    assert [(one.key, one.state) for one in listed] == [("a", "failed")]
    assert "forbidden" in listed[0].reason
    provider.faults = []

    async with opened(tmp_path, provider) as repository:
        await repository.spool.drained()

        assert repository.content("a") == b"content"


async def test_what_was_synchronized_survives_a_crash_and_is_stored(tmp_path: Path) -> None:
    provider, data = memory(), os.urandom(10 * PART + 5)
    async with opened(tmp_path, provider) as repository:
        file = await create(repository, "a")
        await file.write_at(0, data)
        await file.synchronize()
        await file.write_at(len(data), b"not synchronized")

    async with opened(tmp_path, provider) as repository:
        assert await read(repository.tree, "a") == data
        await repository.spool.drained()

        assert repository.content("a") == data
        assert provider.uploads() == []
    assert read_pending(tmp_path / "spool", []) == []


async def test_recovery_twice_is_recovery_once(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        file = await create(repository, "a")
        await file.write_at(0, b"content")
        await file.synchronize()
    provider.faults = [Fault(verb="put", error=gone)]
    for _ in range(3):
        async with opened(tmp_path, provider) as repository:
            assert await read(repository.tree, "a") == b"content"
    provider.faults = []

    async with opened(tmp_path, provider) as repository:
        await repository.spool.drained()

        assert repository.content("a") == b"content"


async def test_what_was_neither_closed_nor_synchronized_is_left_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provider, data = memory(), os.urandom(6 * PART)
    async with opened(tmp_path, provider) as repository:
        file = await create(repository, "half")
        await file.write_at(0, data)
        await trio.testing.wait_all_tasks_blocked()
    assert [one.state for one in read_pending(tmp_path / "spool", [])] == ["left over"]

    async with opened(tmp_path, provider) as repository:
        await repository.spool.drained()
        (pending,) = repository.spool.pending()
        assert (pending.key, pending.state, pending.size) == ("half", "left over", len(data))
        assert await names(repository.tree) == []
        assert repository.stored_keys() == []
        assert provider.uploads() == []

        await repository.spool.retry("half")

        assert repository.content("half") == data
        assert repository.spool.pending() == []
    assert "half" in caplog.text


async def test_a_left_over_file_can_be_discarded(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        file = await create(repository, "half")
        await file.write_at(0, b"content")

    async with opened(tmp_path, provider) as repository:
        await repository.spool.discard("half")

        assert repository.spool.pending() == []
        assert repository.spool.used == 0
        with pytest.raises(FileError):
            await repository.spool.discard("half")
    assert read_pending(tmp_path / "spool", []) == []


async def test_a_changed_object_is_as_it_was_after_a_crash(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        await write(repository.tree, "a", b"first")
        entry = await entry_at(repository.tree, "a")
        file = await repository.tree.open_for_writing(entry, truncate=False)
        await file.write_at(0, b"F")
        assert await read(repository.tree, "a") == b"First"

    async with opened(tmp_path, provider) as repository:
        assert await read(repository.tree, "a") == b"first"


async def test_a_staged_file_stays_local_until_it_is_renamed(tmp_path: Path) -> None:
    provider, data = memory(), os.urandom(9 * PART)
    async with opened(tmp_path, provider) as repository:
        await write(repository.tree, "pack-tmp-1", data)
        assert repository.stored_keys() == []
        assert states(repository) == {"pack-tmp-1": "staged"}
        assert await read(repository.tree, "pack-tmp-1") == data

        await rename(repository.tree, "pack-tmp-1", "pack")

        assert repository.content("pack") == data
        assert await names(repository.tree) == ["pack"]
        assert repository.spool.pending() == []
        assert "copy" not in [verb for verb, _ in provider.requests]


async def test_a_staged_file_survives_a_crash_unpublished(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        await write(repository.tree, "a.tmp", b"content")

    async with opened(tmp_path, provider) as repository:
        await repository.spool.drained()
        assert repository.stored_keys() == []

        await rename(repository.tree, "a.tmp", "a")

        assert repository.content("a") == b"content"


async def test_what_nobody_renames_is_stored_under_its_own_name(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with opened(tmp_path, memory()) as repository:
        await write(repository.tree, "Cargo.lock", b"content")
        await trio.sleep(200)
        assert repository.stored_keys() == []

        await trio.sleep(200)

        assert repository.content("Cargo.lock") == b"content"
        assert repository.spool.pending() == []


async def test_umount_waits_for_staged_files_too(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        await write(repository.tree, "poetry.lock", b"content")
        waits = repository.spool.waited_for()
        assert (waits.files, waits.bytes, waits.first) == (1, 7, "poetry.lock")

        await repository.spool.drained()

        assert repository.content("poetry.lock") == b"content"
        assert repository.spool.waited_for().files == 0


async def test_a_longer_file_than_the_spool_passes(tmp_path: Path) -> None:
    data, most = os.urandom(100 * PART), 0
    async with opened(tmp_path, memory(), PRESSED) as repository:
        file = await create(repository, "long")
        for start in range(0, len(data), 1000):
            await file.write_at(start, data[start : start + 1000])
            most = max(most, repository.spool.used)
        assert most <= PRESSED.spool

        await file.write_at(50 * PART + 7, b"changed after it left")
        expected = bytearray(data)
        expected[50 * PART + 7 : 50 * PART + 28] = b"changed after it left"
        assert bytes(await file.read_at(0, len(data))) == expected
        await file.flush()
        await file.release()
        await trio.testing.wait_all_tasks_blocked()

        assert repository.content("long") == expected
        assert repository.stored_keys() == ["long"]
        assert repository.spool.used == 0


async def test_a_longer_staged_file_than_the_spool_passes(tmp_path: Path) -> None:
    data, most = os.urandom(60 * PART), 0
    async with opened(tmp_path, memory(), PRESSED) as repository:
        file = await create(repository, "image.part")
        for start in range(0, len(data), PART):
            await file.write_at(start, data[start : start + PART])
            most = max(most, repository.spool.used)
        await file.flush()
        await file.release()
        assert await read(repository.tree, "image.part") == data

        await rename(repository.tree, "image.part", "image")
        await trio.testing.wait_all_tasks_blocked()

        assert most <= PRESSED.spool
        assert repository.content("image") == data
        assert repository.stored_keys() == ["image"]


async def test_what_left_the_spool_survives_a_crash(tmp_path: Path) -> None:
    provider, data = memory(), os.urandom(60 * PART)
    async with opened(tmp_path, provider, PRESSED) as repository:
        file = await create(repository, "long")
        for start in range(0, len(data), PART):
            await file.write_at(start, data[start : start + PART])
        await file.synchronize()

    async with opened(tmp_path, provider, PRESSED) as repository:
        assert await read(repository.tree, "long") == data
        await repository.spool.drained()
        await trio.testing.wait_all_tasks_blocked()

        assert repository.content("long") == data
        assert repository.stored_keys() == ["long"]


async def test_hidden_objects_of_a_crash_are_deleted(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, PRESSED) as repository:
        file = await create(repository, "long.tmp")
        for start in range(0, 60 * PART, PART):
            await file.write_at(start, bytes(PART))
        assert any(key.startswith(HIDDEN) for key in repository.stored_keys())
        assert await names(repository.tree) == ["long.tmp"]

    async with opened(tmp_path, provider, PRESSED) as repository:
        await repository.spool.discard("long.tmp")
        await trio.testing.wait_all_tasks_blocked()

        assert repository.stored_keys() == []
        assert not repository.spool.journal.state.asides


async def test_many_short_files_may_exceed_the_spool_rather_than_wait_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path, memory(), PRESSED) as repository:
        for number in range(40):
            await write(repository.tree, f"{number}.tmp", bytes(PART // 2))

        assert repository.spool.used > PRESSED.spool
    assert caplog.text.count("the spool is full") == 1


async def test_a_writer_hears_of_a_store_that_makes_no_room(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, PRESSED) as repository:
        file = await create(repository, "long")
        provider.faults = [Fault(error=gone)]

        with pytest.raises(Unreachable):
            for start in range(0, 60 * PART, PART):
                await file.write_at(start, bytes(PART))

        provider.faults = []
        await file.flush()
        await file.release()


async def test_the_store_may_be_gone_for_a_while_during_a_long_write(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    provider, data = memory(), os.urandom(60 * PART)
    async with opened(tmp_path, provider, PRESSED, patience=AN_HOUR + 60.0) as repository:

        async def outage() -> None:
            await trio.sleep(1)
            provider.faults = [Fault(error=gone)]
            await trio.sleep(AN_HOUR)
            provider.faults = []

        async with trio.open_nursery() as nursery:
            nursery.start_soon(outage)
            file = await create(repository, "long")
            for start in range(0, len(data), PART):
                await file.write_at(start, data[start : start + PART])
                await trio.sleep(0.1)
            await file.flush()
            await file.release()

        assert repository.content("long") == data
        assert trio.current_time() > AN_HOUR


@pytest.mark.parametrize("durability", ["store", "journal"])
async def test_an_outage_longer_than_patience_is_told_and_stored_when_it_is_over(
    tmp_path: Path, durability: str, autojump_clock: trio.testing.MockClock
) -> None:
    provider, data = memory(), os.urandom(12 * PART)
    config = msgspec.structs.replace(CONFIG, durability=durability)
    async with opened(tmp_path, provider, config, patience=AN_HOUR) as repository:
        file = await create(repository, "long")
        await file.write_at(0, data)
        provider.faults = [Fault(error=gone)]

        if durability == "store":
            with pytest.raises(Unreachable):
                await file.flush()
            assert trio.current_time() >= AN_HOUR
        else:
            await file.flush()
        await file.release()
        await trio.sleep(2 * AN_HOUR)
        assert [one.key for one in repository.spool.pending()] == ["long"]
        provider.faults = []

        while repository.spool.pending():  # noqa: ASYNC110 - nobody is told
            await trio.sleep(10)  # while a thread waits for the disk, too

        assert repository.content("long") == data


async def test_an_upload_that_the_store_dropped_is_begun_again(tmp_path: Path) -> None:
    provider, data = memory(), os.urandom(20 * PART)
    async with opened(tmp_path, provider) as repository:
        file = await create(repository, "long")
        await file.write_at(0, data)
        await trio.testing.wait_all_tasks_blocked()
        (pending,) = provider.uploads()
        provider.abort_upload(pending.key, pending.upload)

        await file.flush()
        await file.release()

        assert repository.content("long") == data


async def test_only_what_changed_of_a_stored_object_is_sent(tmp_path: Path) -> None:
    provider, data = memory(), bytearray(os.urandom(40 * PART))
    async with opened(tmp_path, provider) as repository:
        await write(repository.tree, "big", bytes(data))
        sent = repository.store.counters.bytes_out
        entry = await entry_at(repository.tree, "big")
        file = await repository.tree.open_for_writing(entry, truncate=False)
        await file.write_at(17 * PART + 3, b"changed")
        data[17 * PART + 3 : 17 * PART + 10] = b"changed"
        await file.flush()
        await file.release()

        assert repository.content("big") == data
        assert repository.store.counters.bytes_out - sent <= 2 * PART
        assert repository.store.counters.bytes_in <= 2 * PART + 16 * 1024 * 1024


async def test_attributes_set_while_parts_are_sent_come_with_the_object(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        file = await create(repository, "long")
        await file.write_at(0, bytes(20 * PART))
        await until(lambda: ("put_part", "long") in provider.requests)

        await file.change(Changes(mode=0o640, mtime_ns=1_500_000_000))
        await file.flush()
        await file.release()

        stored = provider.head("long").metadata or NO_METADATA
        assert (stored["mode"], stored["mtime"]) == (str(0o100640), "1.500000000")
        assert (await entry_at(repository.tree, "long")).mtime_ns == 1_500_000_000


async def test_a_full_disk_is_enospc_and_loses_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path, memory()) as repository:
        await write(repository.tree, "other.tmp", b"safe")
        (tmp_path / "spool" / "files" / "2").symlink_to("/dev/full")
        file = await create(repository, "a")

        with pytest.raises(FileError) as caught:
            await file.write_at(0, b"content")

        assert caught.value.errno == errno.ENOSPC
        assert "no space left in the spool" in caplog.text
        await file.release()
        await rename(repository.tree, "other.tmp", "other")
        assert repository.content("other") == b"safe"


async def test_one_process_at_a_time_has_the_spool(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        parts = (CONFIG, repository.store, repository.metadata, repository.source)
        with pytest.raises(UsageError, match="another gateway"):
            async with open_spool(tmp_path / "spool", *parts):
                pass
        assert repository.spool.pending() == []


async def test_a_file_longer_than_the_store_takes_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        file = await create(repository, "long")

        with pytest.raises(FileError) as caught:
            await file.write_at(1 << 40, b"x")

        assert caught.value.errno == errno.EFBIG
        await file.release()


async def test_a_directory_rename_is_finished_after_a_crash(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        await make_directory(repository.tree, "old")
        for number in range(5):
            await write(repository.tree, f"old/{number}", b"%d" % number)
        await write(repository.tree, "old/x.tmp", b"staged")
        provider.faults = [Fault(verb="copy", key="old/3", error=lambda: KeyboardInterrupt())]
        with pytest.raises(BaseExceptionGroup):
            await rename(repository.tree, "old", "new")
    provider.faults = []

    async with opened(tmp_path, provider) as repository:
        await repository.spool.drained()

        assert repository.stored_keys() == [f"new/{number}" for number in range(5)]
        assert sorted(await names(repository.tree, "new")) == ["0", "1", "2", "3", "4", "x.tmp"]
        assert await names(repository.tree) == ["new"]
        assert await read(repository.tree, "new/x.tmp") == b"staged"


async def test_a_rename_that_fails_is_taken_back(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        await make_directory(repository.tree, "old")
        for number in range(5):
            await write(repository.tree, f"old/{number}", b"x")
        provider.faults = [Fault(verb="copy", key="old/3", error=gone)]

        with pytest.raises(Unreachable):
            await rename(repository.tree, "old", "new")

        assert repository.stored_keys() == [f"old/{number}" for number in range(5)]
        assert await names(repository.tree) == ["old"]
        provider.faults = []
        await rename(repository.tree, "old", "new")
        assert repository.stored_keys() == [f"new/{number}" for number in range(5)]


async def test_with_a_journal_close_returns_before_the_store_has_it(tmp_path: Path) -> None:
    provider = memory()
    provider.faults = [Fault(verb="put", key="a", times=1, error=gone)]
    async with opened(tmp_path, provider, LAZY) as repository:
        await write(repository.tree, "a", b"first")
        await write(repository.tree, "b.tmp", b"second")
        await rename(repository.tree, "b.tmp", "b")
        await trio.testing.wait_all_tasks_blocked()

        assert repository.stored_keys() == []  # b was acknowledged later than a
        assert await read(repository.tree, "b") == b"second"
        assert states(repository) == {"a": "failed", "b": "waiting"}
        await repository.spool.drained()
        assert repository.stored_keys() == ["a", "b"]


async def test_with_a_journal_what_was_closed_survives_a_crash_in_order(tmp_path: Path) -> None:
    provider = memory()
    provider.faults = [Fault(verb="put", error=gone)]
    async with opened(tmp_path, provider, LAZY) as repository:
        for name in ("pack", "index", "snapshot"):
            await write(repository.tree, f"{name}.tmp", name.encode())
            await rename(repository.tree, f"{name}.tmp", name)
    provider.faults = []
    provider.requests.clear()

    async with opened(tmp_path, provider, LAZY) as repository:
        await repository.spool.drained()

        puts = [key for verb, key in provider.requests if verb == "put"]
        assert puts == ["pack", "index", "snapshot"]
        assert states(repository) == {}


@pytest.mark.parametrize("starts", [1, 2])
async def test_what_a_journal_acknowledged_goes_first_without_one_too(
    tmp_path: Path, starts: int
) -> None:
    provider = memory()
    provider.faults = [Fault(verb="put", error=gone)]
    async with opened(tmp_path, provider, LAZY) as repository:
        for name in ("pack", "index"):
            await write(repository.tree, f"{name}.tmp", name.encode())
            await rename(repository.tree, f"{name}.tmp", name)
    for _ in range(starts):
        async with opened(tmp_path, provider) as repository:
            await trio.testing.wait_all_tasks_blocked()
            for path in ("snapshot", "other.tmp"):
                with pytest.raises(StoreError, match="'pack' has to be stored before"):
                    await write(repository.tree, path, b"")
                    await rename(repository.tree, path, "other")
            await repository.spool.discard("snapshot")
            await repository.spool.discard("other.tmp")
    provider.faults = []
    provider.requests.clear()

    async with opened(tmp_path, provider) as repository:
        await write(repository.tree, "snapshot", b"")
        await write(repository.tree, "next", b"")

        puts = [key for verb, key in provider.requests if verb == "put"]
        assert puts == ["pack", "index", "snapshot", "next"]


async def test_with_a_journal_a_delete_comes_after_all_earlier_files(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, LAZY) as repository:
        await write(repository.tree, "old", b"old")
        await repository.spool.drained()
        provider.requests.clear()
        await write(repository.tree, "new", b"new")
        await repository.tree.unlink(*await place(repository.tree, "old"))

        verbs = [verb for verb, _ in provider.requests if verb in ("put", "delete")]
        assert verbs == ["put", "delete"]


async def test_a_write_while_the_file_is_being_stored_is_stored_by_the_next_close(
    tmp_path: Path,
) -> None:
    provider, gate = memory(), threading.Event()
    async with opened(tmp_path, provider) as repository:
        file = await create(repository, "long")
        await file.write_at(0, bytes(10 * PART))
        await until(lambda: [verb for verb, _ in provider.requests].count("put_part") == 10)
        await file.write_at(9 * PART, b"x" * 10)
        provider.faults = [Fault(verb="put_part", gate=gate)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.flush)
            await until(lambda: [verb for verb, _ in provider.requests].count("put_part") == 11)

            await file.write_at(0, b"y" * 10)
            gate.set()

        assert repository.content("long") == bytes(9 * PART) + b"x" * 10 + bytes(PART - 10)
        await file.flush()
        await file.release()
        assert repository.content("long") == (
            b"y" * 10 + bytes(9 * PART - 10) + b"x" * 10 + bytes(PART - 10)
        )

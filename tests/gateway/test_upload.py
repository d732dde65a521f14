"""Tests of `gateway/upload.py`: what is sent of a file is the file as it is."""

import os
import threading
from collections.abc import Hashable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
import pytest
import trio
from support.writing import CONFIG, PART, create, memory, opened, until, write

from backgate.fs.tree import Changes
from backgate.gateway import upload
from backgate.gateway.allowance import Allowance
from backgate.gateway.errors import Unreachable
from backgate.gateway.providers.memory import Fault

SHARED = msgspec.structs.replace(CONFIG, writers="shared")


def gone() -> Exception:
    return Unreachable("the store is gone")


@pytest.mark.parametrize("copies_parts", [True, False])
async def test_a_short_last_part_that_changes_after_a_failed_close_is_sent_again(
    tmp_path: Path, copies_parts: bool
) -> None:
    provider, data = memory(copies_parts=copies_parts), bytearray(os.urandom(10 * PART + 100))
    async with opened(tmp_path, provider) as repository:
        file = await create(repository, "long")
        await file.write_at(0, bytes(data))
        provider.faults = [Fault(verb="commit_upload", error=gone)]
        with pytest.raises(Unreachable):
            await file.flush()
        provider.faults = []

        await file.write_at(10 * PART + 50, b"changed")
        data[10 * PART + 50 : 10 * PART + 57] = b"changed"
        await file.flush()

        assert repository.content("long") == data
        await file.release()


async def test_a_tail_cut_off_and_grown_again_after_a_failed_close_is_zero(tmp_path: Path) -> None:
    provider, data = memory(), os.urandom(10 * PART + 100)
    async with opened(tmp_path, provider) as repository:
        file = await create(repository, "long")
        await file.write_at(0, data)
        provider.faults = [Fault(verb="commit_upload", error=gone)]
        with pytest.raises(Unreachable):
            await file.flush()
        provider.faults = []

        await file.change(Changes(size=10 * PART + 10))
        await file.change(Changes(size=10 * PART + 100))
        await file.flush()

        assert repository.content("long") == data[: 10 * PART + 10] + bytes(90)
        await file.release()


async def test_a_composed_part_that_changes_after_a_failed_close_is_sent_again(
    tmp_path: Path,
) -> None:
    provider, data = memory(), bytearray(os.urandom(20 * PART))
    async with opened(tmp_path, provider) as repository:
        file = await create(repository, "long")
        await file.write_at(0, bytes(data))
        await file.flush()
        await file.write_at(5 * PART + 7, b"one")
        data[5 * PART + 7 : 5 * PART + 10] = b"one"
        provider.faults = [Fault(verb="commit_upload", error=gone)]
        with pytest.raises(Unreachable):
            await file.flush()
        provider.faults = []

        await file.write_at(5 * PART + 8, b"two")
        data[5 * PART + 8 : 5 * PART + 11] = b"two"
        await file.write_at(17 * PART, b"three")
        data[17 * PART : 17 * PART + 5] = b"three"
        await file.flush()

        assert repository.content("long") == data
        await file.release()


async def test_an_exclusive_file_whose_attributes_come_late_is_stored_once(tmp_path: Path) -> None:
    provider, data = memory(), os.urandom(12 * PART)
    async with opened(tmp_path, provider, SHARED) as repository:
        file = await create(repository, "long", exclusive=True)
        await file.write_at(0, data)
        await until(lambda: ("put_part", "long") in provider.requests)
        await file.change(Changes(mtime_ns=10**18))
        provider.faults = [Fault(verb="copy", error=gone)]
        with pytest.raises(Unreachable):
            await file.flush()
        provider.faults = []

        await file.flush()

        assert repository.content("long") == data
        assert provider.head("long").metadata["mtime"].startswith("1000000000.")  # type: ignore[index]
        await file.release()


async def test_what_leaves_while_the_file_is_being_stored_is_not_taken_for_stored(
    tmp_path: Path,
) -> None:
    pressed = msgspec.structs.replace(CONFIG, spool=14 * PART)
    provider, gate, data = memory(), threading.Event(), bytearray(os.urandom(12 * PART))
    async with opened(tmp_path, provider, pressed) as repository:
        file = await create(repository, "long.tmp")
        await file.write_at(0, bytes(data))
        provider.faults = [Fault(verb="commit_upload", gate=gate)]
        async with trio.open_nursery() as nursery:
            spooled = repository.spool.writing("long.tmp")
            assert spooled is not None
            nursery.start_soon(repository.spool.publish, spooled, "long.tmp")
            await until(lambda: ("commit_upload", "long.tmp") in provider.requests)
            await file.write_at(3 * PART, b"y" * PART)
            data[3 * PART : 4 * PART] = b"y" * PART
            other = await create(repository, "other.tmp")
            for start in range(0, 14 * PART, PART):
                await other.write_at(start, bytes(PART))
            gate.set()

        assert await file.read_at(0, len(data)) == data
        await file.flush()
        await file.release()
        await other.release()
        await repository.spool.drained()
        assert repository.content("long.tmp") == data


async def test_a_small_file_does_not_wait_for_all_parts_of_a_long_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Hashable] = []

    class Noticing(Allowance):
        def taken(self, size: int, line: Hashable = None) -> AbstractAsyncContextManager[None]:
            asked.append(line)
            return super().taken(size, line)

    monkeypatch.setattr(upload, "IN_FLIGHT", PART)
    monkeypatch.setattr(upload, "Allowance", Noticing)
    provider, first, others = memory(), threading.Event(), threading.Event()
    async with opened(tmp_path, provider) as repository, trio.open_nursery() as nursery:
        provider.faults = [
            Fault(verb="put_part", times=1, gate=first),
            Fault(verb="put_part", gate=others),
        ]
        long = await create(repository, "long")
        await long.write_at(0, bytes(10 * PART))
        await until(lambda: len(asked) == 10 and ("put_part", "long") in provider.requests)

        nursery.start_soon(write, repository.tree, "small", b"bytes")
        await until(lambda: len(asked) == 11)
        first.set()

        await until(lambda: repository.stored_keys() == ["small"])
        others.set()
        await long.flush()
        assert repository.content("long") == bytes(10 * PART)
        await long.release()


async def test_a_writer_does_not_wait_for_what_the_store_copies(tmp_path: Path) -> None:
    pressed = msgspec.structs.replace(CONFIG, spool=16 * PART)
    provider, gate, data = memory(), threading.Event(), os.urandom(60 * PART)
    provider.faults = [Fault(verb="copy_part", gate=gate)]
    try:
        async with opened(tmp_path, provider, pressed) as repository:
            file = await create(repository, "long")
            with trio.fail_after(60):
                for start in range(0, len(data), PART):
                    await file.write_at(start, data[start : start + PART])
                    assert repository.spool.used <= pressed.spool
            gate.set()
            await file.flush()
            await file.release()
            await repository.spool.drained()

            assert repository.content("long") == data
            assert repository.stored_keys() == ["long"]
    finally:
        gate.set()


async def test_a_part_that_changes_between_leaving_and_being_copied_is_sent_as_it_is(
    tmp_path: Path,
) -> None:
    pressed = msgspec.structs.replace(CONFIG, spool=16 * PART)
    provider, gate, data = memory(), threading.Event(), bytearray(os.urandom(60 * PART))
    provider.faults = [Fault(verb="copy_part", gate=gate)]
    try:
        async with opened(tmp_path, provider, pressed) as repository:
            file = await create(repository, "long")
            with trio.fail_after(60):
                for start in range(0, len(data), PART):
                    await file.write_at(start, bytes(data[start : start + PART]))
            gate.set()
            for at in range(0, 60 * PART, 5 * PART):
                data[at + 7 : at + 14] = b"changed"
                await file.write_at(at + 7, b"changed")
            await file.flush()
            await file.release()

            assert repository.content("long") == data
    finally:
        gate.set()

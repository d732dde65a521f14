"""Tests of `gateway/leaving.py`: the spool stays within its limit while anything can leave."""

import errno
import os
import threading
from pathlib import Path

import msgspec
import pytest
import trio
from support.writing import CONFIG, PART, create, memory, opened, rename, until, write

from backgate.gateway.errors import Refused, StoreFull
from backgate.gateway.providers.memory import Fault

PRESSED = msgspec.structs.replace(CONFIG, spool=16 * PART)
PRESSED_LAZY = msgspec.structs.replace(PRESSED, durability="journal")
SMALL = PART // 4  # bytes


def refused() -> Exception:
    return Refused("no such right")


async def test_with_a_journal_small_files_wait_for_room_while_others_are_stored(
    tmp_path: Path,
) -> None:
    provider, gate = memory(), threading.Event()
    async with opened(tmp_path, provider, PRESSED_LAZY) as repository:
        provider.faults = [Fault(verb="put", gate=gate)]
        async with trio.open_nursery() as nursery:

            async def write_all() -> None:
                for number in range(80):
                    await write(repository.tree, f"file{number}", bytes(SMALL))

            nursery.start_soon(write_all)
            await until(lambda: repository.spool.used >= PRESSED.spool)
            await trio.testing.wait_all_tasks_blocked(0.05)

            assert repository.spool.used == PRESSED.spool
            gate.set()

        await repository.spool.drained()
        assert len(repository.stored_keys()) == 80


async def test_a_spool_full_of_what_cannot_be_stored_takes_no_more_and_says_why(
    tmp_path: Path,
) -> None:
    provider, written = memory(), 0
    async with opened(tmp_path, provider, PRESSED_LAZY) as repository:
        provider.faults = [Fault(verb="put", error=refused)]

        with trio.fail_after(120), pytest.raises(StoreFull, match=r"'file0': .*no such right"):
            for number in range(80):
                await write(repository.tree, f"file{number}", bytes(SMALL))
                written = number + 1

        assert repository.spool.used <= PRESSED.spool
        provider.faults = []
        await repository.spool.retry()
        assert len(repository.stored_keys()) >= written
        await write(repository.tree, "more", bytes(SMALL))


async def test_a_full_disk_waits_for_what_can_leave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, disk, data = os.pwrite, 20 * PART, os.urandom(100 * PART)
    async with opened(tmp_path, memory()) as repository:

        def pwrite(descriptor: int, piece: bytes, offset: int) -> int:
            if repository.spool.used + len(piece) > disk:
                raise OSError(errno.ENOSPC, "no space left on device")
            return real(descriptor, piece, offset)

        monkeypatch.setattr(os, "pwrite", pwrite)
        for name in ("long", "long.tmp"):
            file = await create(repository, name)
            for start in range(0, len(data), PART):
                await file.write_at(start, data[start : start + PART])
            await file.flush()
            await file.release()
        await rename(repository.tree, "long.tmp", "renamed")

        assert repository.content("long") == repository.content("renamed") == data
        assert repository.spool.limit == CONFIG.spool


async def test_a_writer_waits_for_files_that_are_just_being_closed(tmp_path: Path) -> None:
    provider, gate = memory(), threading.Event()
    async with opened(tmp_path, provider, PRESSED) as repository:
        provider.faults = [Fault(verb="put", gate=gate)]
        other = await create(repository, "other")
        async with trio.open_nursery() as nursery:
            for number in range(64):
                nursery.start_soon(write, repository.tree, f"file{number}", bytes(SMALL))
            await until(lambda: repository.spool.used == PRESSED.spool)
            nursery.start_soon(other.write_at, 0, bytes(SMALL))
            await trio.testing.wait_all_tasks_blocked()

            assert other.size == 0
            gate.set()

        assert other.size == SMALL
        await other.flush()
        await other.release()

"""Tests of `gateway/leaving.py`: the spool stays within its limit while anything can leave."""

import threading
from pathlib import Path

import msgspec
import pytest
import trio
from support.writing import CONFIG, PART, create, memory, opened, until, write

from backgate.gateway.errors import Refused
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


async def test_a_writer_does_not_wait_for_files_that_cannot_be_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provider = memory()
    async with opened(tmp_path, provider, PRESSED_LAZY) as repository:
        provider.faults = [Fault(verb="put", error=refused)]

        with trio.fail_after(10):
            for number in range(80):
                await write(repository.tree, f"file{number}", bytes(SMALL))

        assert repository.spool.used > PRESSED.spool
        assert "the spool is full" in caplog.text
        provider.faults = []


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

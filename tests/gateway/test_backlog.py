"""Tests of `gateway/backlog.py`: what waits is waited for, and no longer than it can be stored."""

import threading
from pathlib import Path

import msgspec
import pytest
import trio
from support.writing import (
    CONFIG,
    entry_at,
    memory,
    opened,
    place,
    rename,
    until,
    write,
)

from backgate.fs.tree import Changes
from backgate.gateway.errors import FileError, Refused, StoreError
from backgate.gateway.providers.memory import Fault

LAZY = msgspec.structs.replace(CONFIG, durability="journal")


def refused() -> Exception:
    return Refused("no such right")


async def test_what_is_stored_while_it_is_discarded_is_not_discarded(tmp_path: Path) -> None:
    provider, gate = memory(), threading.Event()
    async with opened(tmp_path, provider, LAZY) as repository:
        provider.faults = [Fault(verb="put", gate=gate)]
        await write(repository.tree, "a", b"content")
        await until(lambda: ("put", "a") in provider.requests)

        async with trio.open_nursery() as nursery:

            async def discard() -> None:
                with pytest.raises(FileError, match="stored meanwhile"):
                    await repository.spool.discard("a")

            nursery.start_soon(discard)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()

        assert repository.content("a") == b"content"
        assert repository.spool.pending() == []


async def test_what_is_opened_while_it_is_discarded_is_busy(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        await write(repository.tree, "a.tmp", b"content")
        spooled = repository.spool.writing("a.tmp")
        assert spooled is not None

        async with trio.open_nursery() as nursery:

            async def discard() -> None:
                with pytest.raises(FileError):
                    await repository.spool.discard("a.tmp")

            async with repository.spool.claims.claim("a.tmp"):
                nursery.start_soon(discard)
                await trio.testing.wait_all_tasks_blocked()
                repository.spool.hold(spooled)

        assert bytes(await spooled.read_at(0, 10)) == b"content"
        await repository.spool.release(spooled)


async def test_with_a_journal_a_change_behind_what_cannot_be_stored_fails(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, LAZY) as repository:
        await write(repository.tree, "old", b"old")
        await repository.spool.drained()
        provider.faults = [Fault(verb="put", key="new", error=refused)]
        await write(repository.tree, "new", b"new")

        with trio.fail_after(120), pytest.raises(StoreError, match=r"'new'.*no such right"):
            await repository.tree.unlink(*await place(repository.tree, "old"))

        assert "old" in repository.stored_keys()


async def test_with_a_journal_a_closed_file_grows_only_when_it_is_stored(tmp_path: Path) -> None:
    provider, gate = memory(), threading.Event()
    async with opened(tmp_path, provider, LAZY) as repository:
        provider.faults = [Fault(verb="put", gate=gate)]
        await write(repository.tree, "a", b"content")
        file = await repository.tree.open_for_writing(
            await entry_at(repository.tree, "a"), truncate=False
        )

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(file.change, Changes(size=10))
                await trio.testing.wait_all_tasks_blocked()
                assert file.size == 7
                gate.set()

        assert repository.content("a") == b"content"
        assert file.size == 10
        await file.flush()
        await file.release()


async def test_retry_goes_on_behind_a_file_that_fails_again(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        provider.faults = [Fault(verb="put", error=refused)]
        for name in ("a", "b"):
            with pytest.raises(Refused):
                await write(repository.tree, name, name.encode())
        provider.faults = [Fault(verb="put", key="a", error=refused)]

        with pytest.raises(Refused):
            await repository.spool.retry()

        assert repository.stored_keys() == ["b"]
        provider.faults = []
        await repository.spool.drained()


async def test_with_a_journal_a_retry_lets_nothing_overtake_what_fails_again(
    tmp_path: Path,
) -> None:
    provider = memory()
    async with opened(tmp_path, provider, LAZY) as repository:
        provider.faults = [Fault(verb="put", error=refused)]
        for name in ("z-pack", "index", "a-snapshot"):
            await write(repository.tree, f"{name}.tmp", b"content")
            await rename(repository.tree, f"{name}.tmp", name)
        provider.faults = [Fault(verb="put", key="index", error=refused)]

        with pytest.raises(Refused):
            await repository.spool.retry()
        assert repository.stored_keys() == ["z-pack"]
        provider.faults = []
        await repository.spool.retry()

        assert repository.stored_keys() == ["a-snapshot", "index", "z-pack"]

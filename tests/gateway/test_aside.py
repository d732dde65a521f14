"""Tests of `gateway/aside.py`: hidden objects are known before they are made."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
import trio.testing
from support.writing import memory

from backgate.gateway.aside import AHEAD, Asides
from backgate.gateway.deletions import Deletions
from backgate.gateway.journal import Journal, read_journal
from backgate.gateway.providers.memory import Memory
from backgate.gateway.store import ObjectStore

MANY = 8 * AHEAD


class Counted(Journal):
    """A journal that counts how often somebody waited for the disk."""

    waits = 0

    async def synchronize(self) -> None:
        self.waits += 1
        await super().synchronize()


@asynccontextmanager
async def opened(folder: Path, provider: Memory) -> AsyncIterator[tuple[Asides, Counted]]:
    """Hidden objects, and the journal that knows of them."""
    store, journal = ObjectStore(provider, patience=0.0), Counted(folder)
    async with trio.open_nursery() as nursery:
        yield Asides(store, journal, Deletions(store, nursery), nursery, "gateway"), journal
        await trio.testing.wait_all_tasks_blocked()
    journal.close()


async def test_many_hidden_objects_wait_for_the_disk_a_few_times(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as (asides, journal), trio.open_nursery() as nursery:
        for _ in range(MANY):
            nursery.start_soon(asides.put, b"bytes")
    assert journal.waits <= MANY / AHEAD + AHEAD.bit_length()
    assert len(provider.page().objects) == MANY


async def test_the_disk_knows_of_each_hidden_object_before_it_is_made(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as (asides, _):
        for _ in range(MANY):
            info = await asides.put(b"bytes")
            assert info.key in read_journal(tmp_path)[0].asides


async def test_what_was_announced_and_never_made_is_forgotten_at_the_end(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as (asides, _):
        made = {(await asides.put(b"bytes")).key for _ in range(AHEAD)}
        asides.close()
    assert read_journal(tmp_path)[0].asides == made

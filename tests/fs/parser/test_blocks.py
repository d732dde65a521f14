"""Blocks in front of a source: each fetched once, and more together for who reads on."""

import pytest
import trio
import trio.testing

from backgate.fs.parser.blocks import BLOCK, RUN_MAX, Blocks
from backgate.gateway.errors import Damaged, Unreachable
from backgate.gateway.source import Data


class Counted:
    """A source that notes what was asked of it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.reads: list[tuple[int, int]] = []
        self.is_away = False

    async def read_at(self, offset: int, length: int) -> Data:
        self.reads.append((offset, length))
        await trio.sleep(0.1)
        if self.is_away:
            raise Unreachable("away")
        length = max(0, min(length, self.size - offset))
        return bytes(length)


@pytest.fixture
def source() -> Counted:
    return Counted(40 * BLOCK + 10)


async def test_a_block_is_fetched_once_however_many_want_it(
    source: Counted, autojump_clock: trio.testing.MockClock
) -> None:
    blocks = Blocks("a disk", [source], 64 * BLOCK)
    async with trio.open_nursery() as nursery:
        for at in range(0, 1000, 100):
            nursery.start_soon(blocks.read, 0, at, 10)

    assert source.reads == [(0, BLOCK)]


async def test_who_waits_for_a_read_that_fails_tries_again(
    source: Counted, autojump_clock: trio.testing.MockClock
) -> None:
    blocks = Blocks("a disk", [source], 64 * BLOCK)
    source.is_away = True
    failed = []

    async def read() -> None:
        try:
            await blocks.read(0, 0, 10)
        except Unreachable as error:
            failed.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(read)

    assert len(failed) == len(source.reads) == 2
    source.is_away = False
    assert len(await blocks.read(0, 0, 10)) == 10


async def test_who_reads_on_in_a_row_is_given_longer_runs(
    source: Counted, autojump_clock: trio.testing.MockClock
) -> None:
    blocks = Blocks("a disk", [source], 64 * BLOCK)
    for at in range(0, source.size - 4096, 4096):
        await blocks.read(0, at, 4096)

    lengths = [-(-length // BLOCK) for _, length in source.reads]
    assert lengths[:5] == [1, 2, 4, RUN_MAX, RUN_MAX]
    assert sum(length for _, length in source.reads) <= source.size + BLOCK


async def test_who_jumps_is_given_what_he_asks_for(
    source: Counted, autojump_clock: trio.testing.MockClock
) -> None:
    blocks = Blocks("a disk", [source], 64 * BLOCK)
    for block in (3, 9, 20, 5):
        await blocks.read(0, block * BLOCK, 10)

    assert source.reads == [(block * BLOCK, BLOCK) for block in (3, 9, 20, 5)]


async def test_no_more_is_kept_than_it_may(
    source: Counted, autojump_clock: trio.testing.MockClock
) -> None:
    blocks = Blocks("a disk", [source], 2 * BLOCK)
    for block in (0, 10, 20, 0):
        await blocks.read(0, block * BLOCK, 10)

    assert len(source.reads) == 4


async def test_a_block_that_is_kept_keeps_no_other(
    source: Counted, autojump_clock: trio.testing.MockClock
) -> None:
    blocks = Blocks("a disk", [source], 2 * BLOCK)
    await blocks.read(0, 0, 4 * BLOCK)

    assert [len(block.obj) for block in blocks._kept.values()] == [BLOCK, BLOCK]


async def test_a_disk_that_ends_early_is_damage(autojump_clock: trio.testing.MockClock) -> None:
    source = Counted(BLOCK)
    blocks = Blocks("a disk", [source], 2 * BLOCK)
    with pytest.raises(Damaged, match="a disk at byte 1048576"):
        await blocks.read(0, BLOCK - 10, 20)

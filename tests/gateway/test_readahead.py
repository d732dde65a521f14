"""`gateway/readahead.py`: ahead of who reads on, idle for who jumps, bounded for all."""

import errno
import threading
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from backgate.gateway import readahead
from backgate.gateway.budget import Budget
from backgate.gateway.errors import StoreError
from backgate.gateway.readahead import (
    FIRST,
    GAP,
    GROWTH,
    HOLD,
    LATE_READS,
    LEAD,
    PARALLEL,
    SEGMENT,
    WINDOW,
    ReadAhead,
)
from backgate.gateway.source import Bytes, Data
from backgate.gateway.units import KIB, MIB

READ = 128 * KIB  # what the kernel asks for
ZEROS = memoryview(bytes(SEGMENT))  # what long reads give, so that nothing is allocated


class Numbers:
    """A source whose every 8 bytes are their own offset; it counts, waits and fails on demand."""

    def __init__(self, size: int = 1 << 40) -> None:
        self.size = size
        self.reads: list[tuple[int, int]] = []
        self.flying = self.most_flying = 0
        self.seconds = 0.0  # that each read takes
        self.errors: list[Exception] = []  # raised by the next reads

    async def read_at(self, offset: int, length: int) -> Data:
        self.reads.append((offset, length))
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            await trio.sleep(self.seconds)
        finally:
            self.flying -= 1
        if self.errors:
            raise self.errors.pop(0)
        length = min(length, self.size - offset)
        return content(offset, length) if length <= READ else ZEROS[:length]

    @property
    def fetched(self) -> int:
        return sum(length for _, length in self.reads)


def content(offset: int, length: int) -> bytes:
    first = offset // 8
    count = length // 8 + 2
    numbers = b"".join(number.to_bytes(8, "little") for number in range(first, first + count))
    return numbers[offset % 8 :][:length]


class Kernel:
    """What was pushed, by offset; it takes as long, or refuses, as it is told."""

    def __init__(self) -> None:
        self.pushed: list[tuple[int, int]] = []
        self.gate: threading.Event | None = None
        self.error: OSError | None = None

    def push(self, offset: int, data: Data) -> None:
        if self.gate is not None:
            self.gate.wait()
        if self.error is not None:
            raise self.error
        self.pushed.append((offset, offset + len(data)))


@pytest.fixture
def source() -> Numbers:
    return Numbers()


@pytest.fixture
async def tasks() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


async def settle(budget: Budget | None = None) -> None:
    """Let everything that can happen now happen; with `budget`, pushes in threads as well."""
    await trio.testing.wait_all_tasks_blocked(0.001)
    while budget is not None and budget.pushers.borrowed_tokens:
        await trio.testing.wait_all_tasks_blocked(0.001)


async def read_on(ahead: ReadAhead, start: int, stop: int, step: int = READ) -> None:
    for offset in range(start, stop, step):
        data = await ahead.read_at(offset, step)
        assert len(data) == min(step, ahead.size - offset)


async def read_through(kernel: Kernel, ahead: ReadAhead, budget: Budget, stop: int) -> int:
    """Read as through the page cache, and return how many reads got past it."""
    asked = 0
    for offset in range(0, stop, READ):
        if not any(start <= offset < end for start, end in kernel.pushed):
            await ahead.read_at(offset, READ)
            await settle(budget)
            asked += 1
    return asked


async def test_one_read_fetches_nothing_more(source: Numbers, tasks: trio.Nursery) -> None:
    ahead = ReadAhead(source, tasks, Budget())

    await ahead.read_at(0, READ)
    await settle()

    assert source.reads == [(0, READ)]


async def test_random_reads_fetch_what_they_ask_for(source: Numbers, tasks: trio.Nursery) -> None:
    ahead = ReadAhead(source, tasks, Budget())
    offsets = [number * 7919 % 64 * 16 * MIB for number in range(1, 64)]

    for offset in offsets:
        await ahead.read_at(offset, READ)
    await settle()

    assert source.reads == [(offset, READ) for offset in offsets]


async def test_the_second_read_in_a_row_starts_a_small_window(
    source: Numbers, tasks: trio.Nursery
) -> None:
    ahead = ReadAhead(source, tasks, Budget())

    await read_on(ahead, 0, 2 * READ)
    await settle()

    assert sorted(source.reads[2:]) == [(2 * READ, FIRST - 2 * READ), (FIRST, FIRST)]


async def test_what_is_fetched_ahead_is_bounded_by_what_was_read(
    source: Numbers, tasks: trio.Nursery
) -> None:
    ahead = ReadAhead(source, tasks, Budget(1 << 40))

    for offset in range(0, 64 * MIB, MIB):
        await read_on(ahead, offset, offset + MIB, 512 * KIB)
        await settle()
        assert source.fetched <= (1 + GROWTH) * (offset + MIB)
    assert source.fetched <= 64 * MIB + WINDOW


async def test_a_long_run_keeps_long_segments_in_flight(
    source: Numbers, tasks: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    source.seconds = 0.1
    ahead = ReadAhead(source, tasks, Budget(1 << 40))

    await read_on(ahead, 0, 256 * MIB, MIB)

    assert source.most_flying <= PARALLEL + 1  # and the read of one who has caught up
    assert source.reads[-1][1] == SEGMENT
    assert source.reads[-1][0] % SEGMENT == 0


async def test_a_slow_store_is_asked_for_short_segments(
    source: Numbers, tasks: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    ahead = ReadAhead(source, tasks, Budget(1 << 40))
    await read_on(ahead, 0, 256 * MIB, MIB)
    source.seconds = 5.0

    await read_on(ahead, 256 * MIB, 512 * MIB, MIB)

    assert source.reads[-1][1] == FIRST


async def test_every_byte_is_fetched_once_by_a_sequential_reader(
    tasks: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    source = Numbers(100 * MIB + 12345)
    source.seconds = 0.01
    ahead = ReadAhead(source, tasks, Budget())

    await read_on(ahead, 0, source.size)
    await settle()

    assert source.fetched == source.size
    assert max(offset + length for offset, length in source.reads) == source.size


async def test_reads_that_overtake_each_other_are_still_a_run(
    source: Numbers, tasks: trio.Nursery
) -> None:
    ahead = ReadAhead(source, tasks, Budget())

    for first in range(0, 8 * MIB, 4 * READ):
        for number in (1, 0, 3, 2):
            await ahead.read_at(first + number * READ, READ)
    await settle()

    assert len(source.reads) < 32  # of the 64 that came
    assert source.fetched > 16 * MIB


async def test_deep_queues_of_reads_wait_for_segments(
    source: Numbers, tasks: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    ahead = ReadAhead(source, tasks, Budget())
    source.seconds = 0.1
    offsets = iter(range(0, 256 * MIB, MIB))

    async def one_of_eight() -> None:
        for offset in offsets:
            assert len(await ahead.read_at(offset, MIB)) == MIB

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(one_of_eight)

    assert source.fetched <= 256 * MIB + WINDOW
    assert len(source.reads) < 256 // 3  # of those that came, in whatever order they are answered


async def test_a_kernel_that_comes_back_for_what_it_left_out_ends_no_run(
    source: Numbers, tasks: trio.Nursery
) -> None:
    ahead = ReadAhead(source, tasks, Budget())
    await read_on(ahead, 0, 32 * MIB, MIB)
    await settle()

    for first in range(32 * MIB, 160 * MIB, 16 * MIB):  # the first half last
        await read_on(ahead, first + 8 * MIB, first + 16 * MIB, MIB)
        await read_on(ahead, first, first + 8 * MIB, MIB)
        await settle()

    long = sorted((offset, offset + length) for offset, length in source.reads if length > MIB)
    assert all(stop <= start for (_, stop), (start, _) in pairwise(long))  # none was fetched again


async def test_a_reader_that_goes_back_a_little_is_followed_in_the_end(
    source: Numbers, tasks: trio.Nursery
) -> None:
    ahead = ReadAhead(source, tasks, Budget())
    await read_on(ahead, 0, 64 * MIB, MIB)
    await settle()

    await read_on(ahead, 40 * MIB, 40 * MIB + LATE_READS * READ)
    await settle()

    assert source.reads[-1][0] >= 40 * MIB + LATE_READS * READ
    assert source.reads[-1][0] < 64 * MIB


async def test_a_stray_read_does_not_end_a_run(source: Numbers, tasks: trio.Nursery) -> None:
    ahead = ReadAhead(source, tasks, Budget())
    await read_on(ahead, 0, 8 * MIB)
    await settle()
    await ahead.read_at(1 << 39, READ)
    count = len(source.reads)

    await ahead.read_at(8 * MIB, READ)

    assert source.reads[-1] == (1 << 39, READ) or len(source.reads) > count
    assert (8 * MIB, READ) not in source.reads


async def test_a_run_somewhere_else_replaces_the_old_one(
    source: Numbers, tasks: trio.Nursery
) -> None:
    budget = Budget()
    ahead = ReadAhead(source, tasks, budget)
    await read_on(ahead, 0, 16 * MIB)
    await settle()
    far = 1 << 39

    await read_on(ahead, far, far + 2 * READ)
    await settle()

    assert sorted(source.reads)[-1] == (far + FIRST, FIRST)
    assert budget.used == 2 * FIRST - 2 * READ


@pytest.mark.parametrize("error", [StoreError("not now"), ZeroDivisionError("a bug")])
async def test_an_error_ahead_is_raised_to_nobody_and_asked_again(
    source: Numbers, tasks: trio.Nursery, error: Exception
) -> None:
    budget = Budget()
    ahead = ReadAhead(source, tasks, budget)
    await read_on(ahead, 0, 2 * READ)
    source.errors = [error, error]
    await settle()
    assert budget.used == 0

    data = await ahead.read_at(2 * READ, READ)

    assert bytes(data) == content(2 * READ, READ)
    assert (2 * READ, READ) in source.reads


async def test_an_error_of_the_source_reaches_the_reader(
    source: Numbers, tasks: trio.Nursery
) -> None:
    ahead = ReadAhead(source, tasks, Budget())
    source.errors = [StoreError("no")]

    with pytest.raises(StoreError, match="no"):
        await ahead.read_at(0, READ)


async def test_closing_gives_everything_back(source: Numbers, tasks: trio.Nursery) -> None:
    budget = Budget()
    ahead = ReadAhead(source, tasks, budget)
    await read_on(ahead, 0, 8 * MIB)
    await settle()
    source.seconds = 10.0
    await read_on(ahead, 8 * MIB, 9 * MIB)
    assert budget.used > 0

    ahead.close()
    await settle()

    assert budget.used == 0
    assert source.flying == 0


async def test_a_read_that_waits_for_what_is_closed_still_ends_well(
    source: Numbers, tasks: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    ahead = ReadAhead(source, tasks, Budget())
    await ahead.read_at(0, READ)
    await ahead.read_at(READ, READ)
    source.seconds = 10.0
    read: list[Data] = []

    async def take() -> None:
        read.append(await ahead.read_at(2 * READ, READ))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        ahead.close()

    assert [len(data) for data in read] == [READ]


@pytest.mark.slow
async def test_the_budget_bounds_all_files_together(tasks: trio.Nursery) -> None:
    budget = Budget(32 * MIB)
    sources = [Numbers() for _ in range(4)]
    files = [ReadAhead(source, tasks, budget) for source in sources]

    for offset in range(0, 32 * MIB, READ):
        for ahead in files:
            await ahead.read_at(offset, READ)
            assert budget.used <= budget.limit
        await settle()

    assert all(source.fetched > len(source.reads) * READ for source in sources)
    assert all(len(source.reads) < 64 for source in sources)


async def test_a_reader_without_budget_reads_all_the_same(
    source: Numbers, tasks: trio.Nursery
) -> None:
    ahead = ReadAhead(source, tasks, Budget(0))

    await read_on(ahead, 0, 4 * MIB)

    assert source.reads == [(offset, READ) for offset in range(0, 4 * MIB, READ)]


async def test_what_an_idle_file_holds_makes_way(
    tasks: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    budget = Budget(32 * MIB)
    idle, busy = Numbers(), Numbers()
    await read_on(ReadAhead(idle, tasks, budget), 0, 32 * MIB)
    await settle()
    assert budget.used > 16 * MIB
    await trio.sleep(60)
    ahead = ReadAhead(busy, tasks, budget)

    await read_on(ahead, 0, 64 * MIB)
    await settle()

    assert busy.fetched > 64 * MIB + 16 * MIB
    assert budget.used <= budget.limit


async def test_what_arrives_is_pushed_but_for_a_gap(source: Numbers, tasks: trio.Nursery) -> None:
    kernel, budget = Kernel(), Budget()
    ahead = ReadAhead(source, tasks, budget, kernel.push)
    await read_on(ahead, 0, 2 * MIB)
    await settle(budget)

    await ahead.read_at(2 * MIB, READ)
    await settle(budget)

    assert all(start % GAP == 0 for start, _ in kernel.pushed)
    fetched = {start: start + length for start, length in source.reads}
    for start, stop in kernel.pushed:
        begin = max(offset for offset in fetched if offset < start)
        assert start >= begin + GAP
        assert stop == fetched[begin]


async def test_pages_that_were_read_are_not_pushed(
    source: Numbers, tasks: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    kernel, budget = Kernel(), Budget()
    ahead = ReadAhead(source, tasks, budget, kernel.push)

    await read_on(ahead, 0, 2 * READ)
    await settle(budget)

    assert sorted(kernel.pushed) == [(2 * READ + GAP, FIRST), (FIRST + GAP, 2 * FIRST)]


async def test_a_reader_waits_for_a_push_for_a_moment_only(
    source: Numbers, tasks: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    kernel, budget = Kernel(), Budget()
    kernel.gate = threading.Event()
    ahead = ReadAhead(source, tasks, budget, kernel.push)
    await read_on(ahead, 0, 2 * READ)

    before = trio.current_time()
    await read_on(ahead, 2 * READ, 3 * READ)

    assert trio.current_time() - before == pytest.approx(HOLD)
    assert kernel.pushed == []
    kernel.gate.set()


async def test_a_push_that_is_late_goes_on_in_front_of_the_reader(
    source: Numbers, tasks: trio.Nursery
) -> None:
    kernel, budget = Kernel(), Budget()
    ahead = ReadAhead(source, tasks, budget, kernel.push)
    await read_through(kernel, ahead, budget, 64 * MIB)
    kernel.gate = threading.Event()
    edge = max(stop for _, stop in kernel.pushed)
    late = edge + 10 * MIB
    await read_on(ahead, edge, late, MIB)
    kernel.pushed.clear()

    kernel.gate.set()
    await settle(budget)

    behind = [start for start, _ in kernel.pushed if start < late + LEAD]
    assert len(behind) <= 1  # the one that was stuck
    assert len(kernel.pushed) > 4


async def test_a_reader_served_by_the_kernel_is_followed_by_its_reads_in_the_gaps(
    source: Numbers, tasks: trio.Nursery
) -> None:
    kernel, budget = Kernel(), Budget()
    ahead = ReadAhead(source, tasks, budget, kernel.push)

    asked = await read_through(kernel, ahead, budget, 128 * MIB)

    assert asked < 64
    assert source.fetched <= 128 * MIB + WINDOW
    assert max(stop for _, stop in kernel.pushed) > 128 * MIB + 2 * SEGMENT
    assert max(stop for _, stop in kernel.pushed) <= 128 * MIB + WINDOW


async def test_what_was_pushed_is_no_longer_held(source: Numbers, tasks: trio.Nursery) -> None:
    kernel, budget = Kernel(), Budget()
    ahead = ReadAhead(source, tasks, budget, kernel.push)

    await read_through(kernel, ahead, budget, 16 * MIB)
    await settle(budget)

    assert budget.used < 4 * MIB
    assert sum(stop - start for start, stop in kernel.pushed) > 16 * MIB


@pytest.mark.slow
async def test_pushing_stops_when_its_pages_are_asked_for_all_the_same(
    source: Numbers, tasks: trio.Nursery
) -> None:
    kernel, budget = Kernel(), Budget()
    ahead = ReadAhead(source, tasks, budget, kernel.push)
    for offset in range(0, 256 * MIB, MIB):  # direct I/O
        await ahead.read_at(offset, MIB)
        await settle(budget)

    assert max(stop for _, stop in kernel.pushed) < 192 * MIB


async def test_pushing_stops_when_the_kernel_refuses(source: Numbers, tasks: trio.Nursery) -> None:
    kernel, budget = Kernel(), Budget()
    kernel.error = OSError(errno.ENOENT, "no such inode")
    ahead = ReadAhead(source, tasks, budget, kernel.push)
    await read_on(ahead, 0, 4 * MIB)
    await settle(budget)
    kernel.error = None

    await read_on(ahead, 4 * MIB, 8 * MIB)
    await settle(budget)

    assert kernel.pushed == []


async def test_reads_go_on_while_a_push_is_stuck(source: Numbers, tasks: trio.Nursery) -> None:
    kernel, budget = Kernel(), Budget()
    kernel.gate = threading.Event()
    ahead = ReadAhead(source, tasks, budget, kernel.push)

    await read_on(ahead, 0, 16 * MIB)
    kernel.gate.set()
    await settle(budget)


async def test_when_pushing_was_stopped_no_push_follows(
    source: Numbers, tasks: trio.Nursery
) -> None:
    kernel, budget = Kernel(), Budget()
    kernel.gate = threading.Event()
    ahead = ReadAhead(source, tasks, budget, kernel.push)
    await read_on(ahead, 0, 2 * READ)
    await settle()
    stopped = trio.Event()

    async def stop() -> None:
        await ahead.stop_pushing()
        stopped.set()

    tasks.start_soon(stop)
    await settle()
    assert not stopped.is_set()
    kernel.gate.set()
    await stopped.wait()
    pushed = list(kernel.pushed)
    await read_on(ahead, 2 * READ, 16 * MIB)
    await settle(budget)

    assert kernel.pushed == pushed


async def test_behind_the_end_there_is_nothing(tasks: trio.Nursery) -> None:
    ahead = ReadAhead(Bytes(b"0123456789"), tasks, Budget())

    assert bytes(await ahead.read_at(5, 100)) == b"56789"
    assert await ahead.read_at(10, 1) == b""
    assert ahead.size == 10


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(0, 40_000),
    reads=st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 9_000)), max_size=15),
    run=st.integers(1, 5_000),
    limit=st.sampled_from([0, 8192, 1 << 20]),
    is_pushing=st.booleans(),
)
def test_any_reads_at_once_equal_slices(
    size: int, reads: list[tuple[int, int]], run: int, limit: int, is_pushing: bool
) -> None:
    data = content(0, size)

    async def main() -> None:
        async with trio.open_nursery() as tasks:
            ahead = ReadAhead(Bytes(data), tasks, Budget(limit), Kernel().push)

            async def check(offset: int, length: int) -> None:
                assert await ahead.read_at(offset, length) == data[offset : offset + length]

            for offset in range(0, size, run):
                await check(offset, run)
            async with trio.open_nursery() as nursery:
                for offset, length in reads:
                    nursery.start_soon(check, offset, length)
            ahead.close()

    with pytest.MonkeyPatch.context() as patch:
        small = {"FIRST": 1024, "SEGMENT": 4096, "WINDOW": 20_480, "SLACK": 512, "STEP": 256}
        for name, value in (small | {"GAP": 64, "LEAD": 128, "MARK": 1024}).items():
            patch.setattr(readahead, name, value)
        trio.run(main)

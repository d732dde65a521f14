"""`gateway/reader.py`: any read equals a slice, with few, large, shared requests."""

import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from backgate.gateway.blocks import BLOCK, WINDOW, BlockCache, open_blocks
from backgate.gateway.errors import NotFound, Refused, Replaced, StoreError, Unreachable
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.providers.memory import Fault, Memory
from backgate.gateway.reader import LONGEST_RUN, ObjectReader
from backgate.gateway.source import Data
from backgate.gateway.store import ObjectStore
from backgate.gateway.units import KIB, MIB

KEY = "folder/object"
DATA = (bytes(range(251)) * (3 * BLOCK // 251 + 1))[: 3 * BLOCK] + b"the odd end"


class Counting(Memory):
    """A store in memory that notes what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges: list[tuple[int, int]] = []

    def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        self.ranges.append((start, stop))
        return super().get(key, start, stop, etag)


@pytest.fixture
def provider() -> Counting:
    return Counting()


@pytest.fixture
def store(provider: Counting) -> ObjectStore:
    return ObjectStore(provider, patience=0.0)


@pytest.fixture
async def cache() -> AsyncIterator[BlockCache]:
    yield BlockCache()


async def reader(store: ObjectStore, cache: BlockCache, data: bytes = DATA) -> ObjectReader:
    return ObjectReader(store, await store.put(KEY, data), cache)


async def test_a_read_inside_one_block_fetches_one_block(
    store: ObjectStore, provider: Counting, cache: BlockCache
) -> None:
    source = await reader(store, cache)

    data = await source.read_at(BLOCK + 10, 100)

    assert bytes(data) == DATA[BLOCK + 10 : BLOCK + 110]
    assert provider.ranges == [(BLOCK, 2 * BLOCK)]


async def test_a_read_over_blocks_is_one_request(
    store: ObjectStore, provider: Counting, cache: BlockCache
) -> None:
    source = await reader(store, cache)

    assert bytes(await source.read_at(10, 2 * BLOCK)) == DATA[10 : 10 + 2 * BLOCK]
    assert provider.ranges == [(0, 3 * BLOCK)]


async def test_the_last_block_ends_with_the_object(
    store: ObjectStore, provider: Counting, cache: BlockCache
) -> None:
    source = await reader(store, cache)

    assert bytes(await source.read_at(len(DATA) - 5, 100)) == DATA[-5:]
    assert provider.ranges[-1][1] == len(DATA)


@pytest.mark.parametrize("offset", [len(DATA), len(DATA) + 1, 10**15])
async def test_behind_the_end_there_is_nothing(
    store: ObjectStore, provider: Counting, cache: BlockCache, offset: int
) -> None:
    source = await reader(store, cache)

    assert await source.read_at(offset, 10) == b""
    assert provider.ranges == []


async def test_an_empty_object_is_read_without_a_request(
    store: ObjectStore, provider: Counting, cache: BlockCache
) -> None:
    source = await reader(store, cache, b"")

    assert source.size == 0
    assert await source.read_at(0, 10) == b""
    assert provider.ranges == []


async def test_a_read_within_a_fetched_run_is_a_slice_of_it(
    store: ObjectStore, provider: Counting, cache: BlockCache
) -> None:
    content = bytes(8 * MIB)
    source = await reader(store, cache, content)
    whole = await source.read_at(0, 8 * MIB)

    part = await source.read_at(3 * BLOCK + 7, 128 * KIB)

    assert isinstance(whole, memoryview)
    assert isinstance(part, memoryview)
    assert part.obj is whole.obj
    assert provider.ranges == [(0, 8 * MIB)]


async def test_a_segment_that_begins_within_a_block_is_one_request(
    store: ObjectStore, provider: Counting, cache: BlockCache
) -> None:
    source = await reader(store, cache, bytes(20 * MIB))

    await source.read_at(512, 16 * MIB)

    assert provider.ranges == [(0, 16 * MIB + BLOCK)]


async def test_a_longer_read_is_cut_into_requests_side_by_side(
    store: ObjectStore, provider: Counting, cache: BlockCache
) -> None:
    content = bytes(20 * MIB)
    source = await reader(store, cache, content)

    assert await source.read_at(0, 20 * MIB) == content
    longest = LONGEST_RUN * BLOCK
    assert sorted(provider.ranges) == [(0, longest), (longest, 20 * MIB)]


async def test_only_what_is_missing_between_is_asked_for(
    store: ObjectStore, provider: Counting, cache: BlockCache
) -> None:
    content = bytes(range(256)) * (6 * BLOCK // 256)
    source = await reader(store, cache, content)
    await source.read_at(2 * BLOCK, 1)
    await source.read_at(4 * BLOCK, 1)
    provider.ranges.clear()

    assert await source.read_at(0, len(content)) == content

    assert sorted(provider.ranges) == [
        (0, 2 * BLOCK),
        (3 * BLOCK, 4 * BLOCK),
        (5 * BLOCK, 6 * BLOCK),
    ]


@pytest.fixture
def gate(provider: Counting) -> threading.Event:
    """Requests wait for it."""
    event = threading.Event()
    provider.faults.append(Fault(verb="get", gate=event))
    return event


async def test_tasks_share_a_request_in_flight(
    store: ObjectStore, provider: Counting, cache: BlockCache, gate: threading.Event
) -> None:
    source = await reader(store, cache)
    other = await reader(store, cache)
    read: list[Data] = []

    async def take(one: ObjectReader, offset: int) -> None:
        read.append(await one.read_at(offset, 10))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, source, 5)
        nursery.start_soon(take, source, 100)
        nursery.start_soon(take, other, 200)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()

    assert provider.ranges == [(0, BLOCK)]
    assert sorted(map(bytes, read)) == sorted([DATA[5:15], DATA[100:110], DATA[200:210]])


async def test_waiters_ask_themselves_after_a_failed_request(
    store: ObjectStore, provider: Counting, cache: BlockCache
) -> None:
    source = await reader(store, cache)
    gate = threading.Event()
    provider.faults.append(Fault(verb="get", times=1, gate=gate, error=partial(Refused, "no")))
    answers: list[object] = []

    async def take() -> None:
        try:
            answers.append(bytes(await source.read_at(0, 10)))
        except StoreError as error:
            answers.append(str(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()

    assert answers == ["no", DATA[:10]]


async def test_waiters_ask_themselves_after_a_cancelled_request(
    store: ObjectStore, provider: Counting, cache: BlockCache
) -> None:
    source = await reader(store, cache)
    gate = threading.Event()
    provider.faults.append(Fault(verb="get", times=1, gate=gate))
    answers: list[bytes] = []

    async def take(scope: trio.CancelScope) -> None:
        with scope:
            answers.append(bytes(await source.read_at(0, 10)))

    first = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(take, trio.CancelScope())
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
        gate.set()

    assert answers == [DATA[:10]]
    assert cache.flights == {}


async def test_one_failed_request_of_several_fails_the_read_and_nothing_stays_claimed(
    store: ObjectStore, provider: Counting, cache: BlockCache
) -> None:
    source = await reader(store, cache, bytes(20 * MIB))
    provider.faults.append(
        Fault(verb="get", skip=1, times=1, error=partial(NotFound, "gone", key="object"))
    )

    with pytest.raises(NotFound, match="gone"):
        await source.read_at(0, 20 * MIB)

    assert cache.flights == {}
    assert len(await source.read_at(0, 20 * MIB)) == 20 * MIB


async def test_a_fault_that_passes_within_the_patience_is_not_seen(
    store: ObjectStore, provider: Counting, cache: BlockCache, autojump_clock: trio.abc.Clock
) -> None:
    source = await reader(store.patient(60.0), cache)
    provider.faults.append(Fault(verb="get", times=2, error=partial(Unreachable, "503")))

    assert bytes(await source.read_at(0, 10)) == DATA[:10]


async def test_a_fault_that_stays_is_raised_when_patience_ends(
    store: ObjectStore, provider: Counting, cache: BlockCache, autojump_clock: trio.abc.Clock
) -> None:
    source = await reader(store.patient(60.0), cache)
    provider.faults.append(Fault(verb="get", error=partial(Unreachable, "503")))

    with pytest.raises(Unreachable):
        await source.read_at(0, 10)


async def test_an_object_that_was_replaced_is_never_mixed_with_the_old_one(
    store: ObjectStore, cache: BlockCache
) -> None:
    source = await reader(store, cache)
    await source.read_at(0, 10)
    await store.put(KEY, DATA[::-1])

    with pytest.raises(Replaced):
        await source.read_at(2 * BLOCK, 10)


async def test_an_answer_of_the_wrong_length_is_not_the_object(
    store: ObjectStore, cache: BlockCache
) -> None:
    await store.put(KEY, b"short")
    source = ObjectReader(store, ObjectInfo(KEY, 100, 0, etag=""), cache)

    with pytest.raises(Replaced, match="5 bytes came"):
        await source.read_at(0, 10)


async def fill(
    tmp_path: Path, store: ObjectStore, ranges: list[tuple[int, int]], data: bytes = DATA
) -> ObjectInfo:
    """Put the blocks of `ranges` on disk, as an earlier run of the gateway would have."""
    with open_blocks(tmp_path, 64 * MIB) as cache:
        source = await reader(store, cache, data)
        for offset, length in ranges:
            await source.read_at(offset, length)
    return await store.head(KEY)


async def test_what_an_earlier_run_read_comes_from_disk(
    store: ObjectStore, provider: Counting, tmp_path: Path
) -> None:
    info = await fill(tmp_path, store, [(0, len(DATA))])
    provider.ranges.clear()

    with open_blocks(tmp_path, 64 * MIB) as cache:
        source = ObjectReader(store, info, cache)
        assert bytes(await source.read_at(0, len(DATA))) == DATA

    assert provider.ranges == []


async def test_disk_and_store_complete_each_other(
    store: ObjectStore, provider: Counting, tmp_path: Path
) -> None:
    info = await fill(tmp_path, store, [(BLOCK, 1)])
    provider.ranges.clear()

    with open_blocks(tmp_path, 64 * MIB) as cache:
        source = ObjectReader(store, info, cache)
        assert await source.read_at(0, len(DATA)) == DATA

    assert sorted(provider.ranges) == [(0, BLOCK), (2 * BLOCK, len(DATA))]


async def test_a_block_damaged_on_disk_is_fetched_again(
    store: ObjectStore, provider: Counting, tmp_path: Path
) -> None:
    info = await fill(tmp_path, store, [(0, len(DATA))])
    content = bytearray((tmp_path / "blocks").read_bytes())
    content[content.index(DATA[BLOCK : BLOCK + 1000]) + 7] ^= 0x80
    (tmp_path / "blocks").write_bytes(content)
    provider.ranges.clear()

    with open_blocks(tmp_path, 64 * MIB) as cache:
        source = ObjectReader(store, info, cache)
        assert bytes(await source.read_at(0, len(DATA))) == DATA

    assert len(provider.ranges) == 1


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(0, 5 * BLOCK),
    reads=st.lists(st.tuples(st.integers(0, 5 * BLOCK), st.integers(0, 3 * BLOCK)), max_size=8),
    cached=st.lists(st.integers(0, 4), max_size=3),
)
def test_any_reads_at_once_equal_slices(
    size: int, reads: list[tuple[int, int]], cached: list[int]
) -> None:
    data = (b"%07d " * (size // 8 + 1) % tuple(range(size // 8 + 1)))[:size]

    async def main() -> None:
        store, cache = ObjectStore(Counting()), BlockCache()
        source = await reader(store, cache, data)
        for number in cached:
            await source.read_at(number * BLOCK, 1)

        async def check(offset: int, length: int) -> None:
            assert await source.read_at(offset, length) == data[offset : offset + length]

        async with trio.open_nursery() as nursery:
            for offset, length in reads:
                nursery.start_soon(check, offset, length)
        assert cache.flights == {}

    trio.run(main)


@pytest.mark.slow
async def test_memory_stays_bounded_while_a_large_object_is_read(
    store: ObjectStore, cache: BlockCache
) -> None:
    source = await reader(store, cache, bytes(3 * WINDOW))

    for offset in range(0, 3 * WINDOW, 4 * MIB):
        await source.read_at(offset, 4 * MIB)

    held = [
        number for number in range(3 * WINDOW // BLOCK) if cache.recent(source._version, number)
    ]
    assert len(held) * BLOCK <= WINDOW

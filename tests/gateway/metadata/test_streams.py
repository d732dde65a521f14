"""Several streams share one stretch of keys; whatever the store does, each key is told."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from support.numbered import Numbered

from backgate.gateway.errors import StoreError, Unreachable
from backgate.gateway.metadata.cache import Metadata
from backgate.gateway.metadata.streams import SPLIT_AFTER, STREAMS
from backgate.gateway.provider import Abilities, Listing, Page
from backgate.gateway.providers.memory import Memory
from backgate.gateway.store import ObjectStore

from .conftest import OpenCache

pytestmark = pytest.mark.slow

COUNT = 6000
PAGE = 25


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


class Slow(Numbered):
    """A store in which every page takes a second, and which notes what it told."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.told: Counter[str] = Counter()
        self.asked: list[tuple[str, str | None, int]] = []  # after, token, limit
        self.page_size = PAGE

    def page(
        self,
        prefix: str = "",
        delimiter: str = "",
        *,
        after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> Page:
        self.asked.append((after, token, limit))
        limit = min(limit, self.page_size)
        page = super().page(prefix, "", after=after, token=token, limit=limit)
        self.told.update(info.key for info in page.objects)
        return page


class SlowStore(ObjectStore):
    """Its pages are answered one second later, on trio's clock."""

    most = under_way = 0

    async def page(self, *args: object, **named: object) -> Page:
        self.under_way += 1
        type(self).most = max(type(self).most, self.under_way)
        try:
            await trio.sleep(1)
            return await super().page(*args, **named)  # type: ignore[arg-type]
        finally:
            self.under_way -= 1


@pytest.fixture
def memory() -> Slow:
    return Slow(COUNT)


@pytest.fixture
def store(memory: Slow) -> ObjectStore:
    SlowStore.most = 0
    return SlowStore(memory, patience=3600.0)


async def below(metadata: Metadata, prefix: str = "") -> list[str]:
    found: list[str] = []
    while page := await metadata.below(prefix, found[-1] if found else ""):
        found += [info.key for info in page]
    return found


def all_keys(memory: Slow) -> list[str]:
    return [memory.key(number) for number in range(memory.count)]


async def test_streams_share_the_work(
    open_cache: OpenCache, memory: Slow, autojump_clock: trio.abc.Clock
) -> None:
    async with open_cache() as metadata:
        began = trio.current_time()
        await metadata.refresh()
        took = trio.current_time() - began
        found = await below(metadata)

    assert found == all_keys(memory)
    assert SlowStore.most == STREAMS
    assert took < COUNT / PAGE * 2 / 3
    assert sum(memory.told.values()) < COUNT + STREAMS * 2 * PAGE


async def test_what_a_refresh_knows_is_split_without_a_question(
    open_cache: OpenCache, memory: Slow, autojump_clock: trio.abc.Clock
) -> None:
    memory.page_size = 100
    async with open_cache() as metadata:
        await metadata.refresh()
        memory.asked.clear()
        memory.told.clear()
        memory.page_size = PAGE
        memory.count += 5
        await metadata.refresh()
        found = await below(metadata)

    assert found == all_keys(memory)
    assert SlowStore.most == STREAMS
    probes = [limit for _, _, limit in memory.asked if limit == 1]
    assert len(probes) < 2 * STREAMS * 24


async def test_a_store_of_few_pages_is_asked_by_one_stream(
    open_cache: OpenCache, memory: Slow, autojump_clock: trio.abc.Clock
) -> None:
    memory.count = PAGE * (SPLIT_AFTER - 1)
    async with open_cache() as metadata:
        await metadata.refresh()

    assert SlowStore.most == 1
    assert len(memory.asked) == SPLIT_AFTER - 1


async def test_pages_go_on_by_the_token_that_the_store_gave(
    open_cache: OpenCache, memory: Slow, autojump_clock: trio.abc.Clock
) -> None:
    memory.count = PAGE * (SPLIT_AFTER - 1)
    async with open_cache() as metadata:
        await metadata.refresh()

    tokens = [token for _, token, _ in memory.asked]
    assert tokens == [None, *(memory.key(n * PAGE - 1) for n in range(1, SPLIT_AFTER - 1))]


@pytest.mark.parametrize("seed", range(3))
async def test_a_crawl_killed_again_and_again_repeats_less_than_a_page_of_each_stream(
    open_cache: OpenCache, memory: Slow, autojump_clock: trio.abc.Clock, seed: int
) -> None:
    for number in range(3):
        async with open_cache() as metadata:
            with trio.move_on_after(11.5 + seed + number):
                await metadata._parts.crawler.everything(3600)
    async with open_cache() as metadata:
        await metadata._parts.crawler.everything(3600)
        found = await below(metadata)

    assert found == all_keys(memory)
    assert sum(memory.told.values()) < COUNT + (3 + 2) * STREAMS * PAGE


async def test_a_stream_that_fails_ends_the_others_and_says_why(
    open_cache: OpenCache, memory: Slow, autojump_clock: trio.abc.Clock
) -> None:
    page, fails_from = memory.page, memory.key(2000)

    def failing(*args: str, after: str = "", token: str | None = None, **rest: int) -> Page:
        if (token or after) >= fails_from:
            raise StoreError("500: no such shard")
        return page(*args, after=after, token=token, **rest)

    memory.page = failing  # type: ignore[method-assign, assignment]
    async with open_cache() as metadata:
        with pytest.raises(StoreError, match="no such shard"):
            await metadata.refresh()
        objects = (await metadata.status()).objects

    assert 0 < objects <= 2000 + PAGE


async def test_a_stream_waits_out_faults_while_the_others_go_on(
    open_cache: OpenCache, memory: Slow, autojump_clock: trio.abc.Clock
) -> None:
    page, count = memory.page, 0

    def failing(*args: str, **rest: object) -> Page:
        nonlocal count
        count += 1
        if count % 7 == 0:
            raise Unreachable("503", retry_after=2)
        return page(*args, **rest)  # type: ignore[arg-type]

    memory.page = failing  # type: ignore[method-assign, assignment]
    async with open_cache() as metadata:
        await metadata.refresh()
        found = await below(metadata)

    assert found == all_keys(memory)


def from_the_start(page: Callable[..., Page]) -> Callable[..., Page]:
    """Ignore where a listing should begin."""
    return lambda *args, after="", **rest: page(*args, after="", **rest)


def with_the_key_itself(page: Callable[..., Page]) -> Callable[..., Page]:
    """Begin a listing with the key behind which it should."""

    def inclusive(*args: str, after: str = "", token: str | None = None, **rest: int) -> Page:
        earlier = after[:-1] + chr(ord(after[-1]) - 1) if after and token is None else after
        return page(*args, after=earlier, token=token, **rest)

    return inclusive


def forgetting_tokens(page: Callable[..., Page]) -> Callable[..., Page]:
    """Refuse every third token."""
    count = 0

    def forgetting(*args: str, token: str | None = None, **rest: object) -> Page:
        nonlocal count
        count += token is not None
        if token is not None and count % 3 == 0:
            raise StoreError("400: the token is not valid")
        return page(*args, token=token, **rest)

    return forgetting


def larger_than_asked(page: Callable[..., Page]) -> Callable[..., Page]:
    """Give up to seven times as many keys as were asked for."""
    return lambda *args, limit=1000, **rest: page(*args, limit=7 * limit, **rest)


@pytest.mark.parametrize(
    "oddity", [from_the_start, with_the_key_itself, forgetting_tokens, larger_than_asked]
)
async def test_a_store_that_lists_oddly_is_listed_whole(
    open_cache: OpenCache,
    memory: Slow,
    autojump_clock: trio.abc.Clock,
    oddity: Callable[[Callable[..., Page]], Callable[..., Page]],
) -> None:
    memory.page_size = 1000
    memory.page = oddity(memory.page)  # type: ignore[method-assign]
    async with open_cache() as metadata:
        await metadata.complete("xo-vm-backups/000001/")
        with trio.move_on_after(2.5):
            await metadata.refresh()
        await metadata.refresh()
        found = await below(metadata)

    assert found == all_keys(memory)


async def test_a_listing_of_nothing_but_empty_pages_ends(
    open_cache: OpenCache, memory: Slow, autojump_clock: trio.abc.Clock
) -> None:
    tokens = iter(range(10**6))
    memory.page = lambda *args, **rest: Page([], [], str(next(tokens)))  # type: ignore[method-assign]
    async with open_cache() as metadata:
        with pytest.raises(StoreError, match="does not go on"):
            await metadata.refresh()


@pytest.mark.parametrize("is_flat_pass_first", [False, True])
async def test_an_order_that_nobody_vouches_for_is_relied_on_once_it_was_seen(
    open_cache: OpenCache,
    memory: Slow,
    store: ObjectStore,
    autojump_clock: trio.abc.Clock,
    is_flat_pass_first: bool,
) -> None:
    store.abilities = memory.abilities = replace(
        memory.abilities, listing=Listing(order_is_sure=False)
    )
    async with open_cache() as metadata:
        if is_flat_pass_first:
            await metadata.complete("xo-vm-backups/000001/")
        await metadata.refresh()
        first = SlowStore.most
        await metadata.refresh()
        found = await below(metadata)

    assert found == all_keys(memory)
    assert (first, SlowStore.most) == (1, STREAMS)


async def test_a_name_that_appears_out_of_order_later_is_not_lost(
    open_cache: OpenCache,
    store: ObjectStore,
    memory: Slow,
    autojump_clock: trio.abc.Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = Memory("memory:odd", Abilities(lists_in_order=False))
    for number in range(40):
        plain.put(f"a/{number:02}", b"1")
    store._provider = plain
    store.abilities = Abilities(listing=Listing(order_is_sure=False))
    async with open_cache() as metadata:
        await metadata.refresh()
        await metadata.stored(plain.put("a-", b"1"), None)  # it is listed behind all of a/
        before = (await metadata.status()).lists_in_order
        await metadata.refresh()
        found = await below(metadata)

        assert (await metadata.status()).is_complete

    assert before
    assert "a-" in found
    assert len(found) == 41
    assert "does not list in order" in caplog.text

import random
from dataclasses import replace

import pytest
import trio
from support.at_once import at_once

from backgate.gateway.errors import NotFound, StoreError, Unreachable
from backgate.gateway.metadata.cache import Metadata
from backgate.gateway.provider import Abilities, Listing, ObjectInfo, Page
from backgate.gateway.providers.memory import Fault, Memory
from backgate.gateway.store import ObjectStore

from .conftest import OpenCache

KEYS = [f"{number // 10:03}/{number:04}" for number in range(400)]


class Tier3(Memory):
    """A store whose pages of more than `most` keys time out, by delimiter all of them."""

    most = 100
    knows_delimiters = True

    def page(
        self,
        prefix: str = "",
        delimiter: str = "",
        *,
        after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> Page:
        if limit > self.most or (delimiter and not self.knows_delimiters):
            self.requests.append(("time-out", f"{delimiter}{limit}"))
            raise Unreachable("no answer within 60 s")
        page = super().page(prefix, delimiter, after=after, token=token, limit=limit)
        return self.changed(page)

    def changed(self, page: Page) -> Page:
        return page


@pytest.fixture
def memory() -> Tier3:
    memory = Tier3("memory:tier3")
    for key in KEYS:
        memory.put(key, b"1")
    memory.requests.clear()
    return memory


async def below(metadata: Metadata, prefix: str = "") -> list[str]:
    found: list[str] = []
    while page := await metadata.below(prefix, found[-1] if found else ""):
        found += [info.key for info in page]
    return found


async def test_pages_shrink_until_the_store_answers(
    open_cache: OpenCache, memory: Tier3, autojump_clock: trio.abc.Clock
) -> None:
    async with open_cache() as metadata:
        found = await below(metadata)
        status = await metadata.status()

    assert found == KEYS
    assert status.page_size <= 124
    assert status.timeouts == len([one for one in memory.requests if one[0] == "time-out"]) < 16


async def test_the_page_size_is_remembered(
    open_cache: OpenCache, memory: Tier3, autojump_clock: trio.abc.Clock
) -> None:
    async with open_cache() as metadata:
        await below(metadata, "000/")
    memory.requests.clear()

    async with open_cache() as metadata:
        await below(metadata, "001/")

    assert memory.requests == [("page", "001/")]


async def test_a_level_that_times_out_is_listed_flat(
    open_cache: OpenCache, memory: Tier3, autojump_clock: trio.abc.Clock
) -> None:
    memory.knows_delimiters = False
    async with open_cache() as metadata:
        shown, _ = await metadata.children("")

    assert [name for name, _ in shown] == [f"{number:03}" for number in range(40)]


async def test_a_level_is_not_listed_flat_because_the_store_is_away(
    open_cache: OpenCache, memory: Tier3, autojump_clock: trio.abc.Clock
) -> None:
    memory.faults = [Fault(verb="page", times=30, error=lambda: Unreachable("no connection"))]
    async with open_cache() as metadata:
        await metadata.children("")
        status = await metadata.status()

    assert not status.is_complete


async def test_a_store_that_ignores_delimiters_is_listed_flat(
    open_cache: OpenCache, memory: Tier3
) -> None:
    memory.most = 1000
    page = Memory.page
    memory.page = lambda prefix="", delimiter="", **rest: page(memory, prefix, **rest)  # type: ignore[method-assign]
    async with open_cache() as metadata:
        shown, _ = await metadata.children("")

    assert len(shown) == 40


async def test_a_crawl_that_was_interrupted_repeats_no_more_than_the_page_on_its_way(
    open_cache: OpenCache, memory: Tier3, autojump_clock: trio.abc.Clock
) -> None:
    memory.most = 1000
    memory.faults = [Fault(verb="page", short=30)]
    listed = 0

    def interrupt(page: Page) -> Page:
        nonlocal listed
        listed += len(page.objects)
        if listed in (90, 210, 330):
            scope.cancel()
        return page

    memory.changed = interrupt  # type: ignore[method-assign]
    scope = trio.CancelScope()
    async with open_cache() as metadata:
        with scope:
            await metadata.refresh()
    for _ in range(3):
        scope = trio.CancelScope()
        async with open_cache() as metadata:
            while_crawling = await metadata.status()
            with scope:
                await metadata._parts.crawler.everything(60)
            status = await metadata.status()

    assert not while_crawling.is_complete
    assert status.is_complete
    assert status.objects == len(KEYS)
    assert listed <= len(KEYS) + 3 * 30  # the pages that were on their way


async def test_a_pass_without_order_goes_on_where_it_was_interrupted(
    open_cache: OpenCache, memory: Tier3, store: ObjectStore
) -> None:
    memory.most = 1000
    memory.abilities = store.abilities = Abilities(lists_in_order=False)
    memory.faults = [Fault(verb="page", short=30)]
    tokens: list[str | None] = []
    page = Tier3.page

    def noting(*args: str, token: str | None = None, **rest: object) -> Page:
        tokens.append(token)
        if len(tokens) == 5:
            scope.cancel()
        return page(memory, *args, token=token, **rest)  # type: ignore[arg-type]

    memory.page = noting  # type: ignore[method-assign]
    scope = trio.CancelScope()
    async with open_cache() as metadata:
        with scope:
            await metadata.refresh()
    async with open_cache() as metadata:
        await metadata._parts.crawler.everything(60)
        found = await below(metadata)

    assert found == KEYS
    assert tokens.count(None) == 1
    assert len(tokens) == len(KEYS) // 30 + 1 + 1  # one was on its way


async def test_a_token_that_the_store_forgot_starts_the_pass_again(
    open_cache: OpenCache, memory: Tier3, store: ObjectStore
) -> None:
    memory.most = 1000
    memory.abilities = store.abilities = Abilities(lists_in_order=False)
    memory.faults = [Fault(verb="page", short=30)]
    scope = trio.CancelScope()
    page, forgotten = Tier3.page, False

    def forgetting(*args: str, token: str | None = None, **rest: object) -> Page:
        if token is not None and not forgotten:
            scope.cancel()
        if token is not None and forgotten and not memory.requests:
            memory.requests.append(("refused", token))
            raise StoreError("400: the token is not valid")
        return page(memory, *args, token=token, **rest)  # type: ignore[arg-type]

    memory.page = forgetting  # type: ignore[method-assign]
    async with open_cache() as metadata:
        with scope:
            await metadata.refresh()
    forgotten = True
    memory.requests.clear()
    async with open_cache() as metadata:
        await metadata._parts.crawler.everything(60)
        found = await below(metadata)

    assert memory.requests[0][0] == "refused"
    assert found == KEYS


async def test_pages_that_are_empty_and_not_the_last_are_no_end(
    open_cache: OpenCache, memory: Tier3
) -> None:
    memory.most = 1000
    page = Memory.page

    def halting(*args: str, token: str | None = None, **rest: object) -> Page:
        if token is None or not token.startswith("+"):
            return Page([], [], f"+{token or ''}")
        return page(memory, *args, token=token[1:] or None, **{**rest, "limit": 30})  # type: ignore[arg-type]

    memory.page = halting  # type: ignore[method-assign]
    async with open_cache() as metadata:
        found = await below(metadata)
        shown, _ = await metadata.children("003/")

    assert found == KEYS
    assert len(shown) == 10


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (lambda page: replace(page, objects=[ObjectInfo("x", 1, 1, "")]), "not below '000/'"),
        (lambda page: Page([], [], "same"), "does not go on"),
    ],
)
async def test_a_page_that_does_not_answer_the_question_is_an_error(
    open_cache: OpenCache, memory: Tier3, changed: object, reason: str
) -> None:
    memory.most = 1000
    memory.changed = changed  # type: ignore[assignment, method-assign]
    async with open_cache() as metadata:
        with pytest.raises(StoreError, match=reason):
            await metadata.below("000/")
        with pytest.raises(StoreError, match=reason):
            await metadata.children("000/")


async def test_a_key_listed_out_of_order_is_noticed_and_nothing_is_lost(
    open_cache: OpenCache, memory: Tier3, caplog: pytest.LogCaptureFixture
) -> None:
    memory.most = 1000
    page = Memory.page

    def backwards(*args: str, token: str | None = None, **rest: object) -> Page:
        found = page(memory, *args, token=token, **{**rest, "limit": 50})  # type: ignore[arg-type]
        return replace(found, objects=list(reversed(found.objects)))

    memory.page = backwards  # type: ignore[method-assign]
    async with open_cache() as metadata:
        found = await below(metadata)
        status = await metadata.status()

    assert found == KEYS
    assert not status.lists_in_order
    assert "does not list in order" in caplog.text


async def test_on_demand_listings_go_before_the_crawl(
    open_cache: OpenCache, memory: Tier3, autojump_clock: trio.abc.Clock
) -> None:
    memory.most = 1000
    memory.faults = [Fault(verb="page", key="", short=10)]
    async with open_cache(crawls=True) as metadata:
        while not memory.requests:
            await trio.lowlevel.checkpoint()
        await metadata.children("030/")
        crawled = memory.requests.count(("page", ""))
        await trio.sleep(10)

        assert (await metadata.status()).is_complete

    assert crawled <= 2


async def test_a_listing_for_a_caller_uses_what_the_crawl_has_covered(
    open_cache: OpenCache, memory: Tier3
) -> None:
    memory.most = 1000
    async with open_cache() as metadata:
        await metadata.complete("00")
        await metadata.complete("01")
        memory.requests.clear()
        memory.faults = [Fault(verb="page", short=40)]

        await metadata.complete("0")

    assert len(memory.requests) == 1 + 5


@pytest.mark.slow
async def test_own_writes_go_on_while_a_thread_lets_pages_in(
    open_cache: OpenCache, memory: Tier3
) -> None:
    memory.most = 1000
    for number in range(20_000):
        memory.put(f"big/{number // 100:03}/{number:05}", b"1")
    chosen = random.Random(7)
    is_done = False

    async def write(metadata: Metadata) -> None:
        while not is_done:
            key = f"big/{chosen.randrange(200):03}/{chosen.randrange(20_000):05}"
            if chosen.random() < 0.5:
                await metadata.stored(memory.put(key, b"22"), None)
            else:
                memory.delete([key])
                await metadata.removed([key])
            await trio.lowlevel.checkpoint()

    async with open_cache() as metadata:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, metadata)
            await metadata.complete()
            await metadata.refresh()
            is_done = True
        found = await below(metadata)
        status = await metadata.status()

    assert found == sorted(memory._objects)
    assert status.objects == len(found)
    assert status.bytes == sum(one.info.size for one in memory._objects.values())


@pytest.mark.parametrize("is_level", [True, False])
async def test_what_is_written_while_a_store_without_order_is_listed_is_not_swept_away(
    open_cache: OpenCache, memory: Tier3, store: ObjectStore, is_level: bool
) -> None:
    memory.most = 1000
    memory.abilities = store.abilities = Abilities(lists_in_order=False)
    page = memory.page

    def told_too_early(*args: str, **rest: object) -> Page:
        found = page(*args, **rest)  # type: ignore[arg-type]
        if "000/new" not in memory._objects:
            at_once(metadata.stored(memory.put("000/new", b"1"), None))
        return found

    async with open_cache() as metadata:
        await metadata.children("000/")
        memory.page = told_too_early  # type: ignore[method-assign]
        crawler = metadata._parts.crawler
        await (crawler.level if is_level else crawler.flat)("000/", 10, is_refresh=True)
        shown, _ = await metadata.children("000/")

    assert "new" in [name for name, _ in shown]


async def test_a_directory_that_is_known_to_be_scanned_is_listed_flat_at_once(
    open_cache: OpenCache, memory: Tier3, store: ObjectStore
) -> None:
    memory.most = 1000
    memory.knows_delimiters = False
    memory.abilities = store.abilities = Abilities(listing=Listing(delimiter_scans=True))
    async with open_cache() as metadata:
        shown, _ = await metadata.children("003/")

    assert len(shown) == 10
    assert memory.requests == [("page", "003/")]


async def test_a_store_that_is_known_to_time_out_is_asked_for_small_pages_first(
    open_cache: OpenCache, memory: Tier3, store: ObjectStore
) -> None:
    memory.most = 125
    memory.abilities = store.abilities = Abilities(listing=Listing(is_slow=True))
    async with open_cache() as metadata:
        found = await below(metadata)
        status = await metadata.status()

    assert found == KEYS
    assert status.timeouts == 0


async def test_what_listings_cost_is_counted_over_all_processes(
    open_cache: OpenCache, memory: Tier3, store: ObjectStore
) -> None:
    memory.most = 1000
    memory.abilities = store.abilities = Abilities(listing=Listing(price=5.0))
    for _ in range(2):
        async with open_cache() as metadata:
            await metadata.refresh()
            with pytest.raises(NotFound):
                await metadata._asking.name("absent", None, is_beside=False)
            status = await metadata.status()

    assert (status.pages, status.requests) == (2, 4)
    assert status.cost == pytest.approx(4 * 5.0 / 1000)

import logging
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import pytest
import trio
import trio.testing
from support.at_once import at_once

from backgate.gateway.attributes import Attributes, metadata_from_attributes
from backgate.gateway.errors import NotFound, Refused, StoreError, Unreachable
from backgate.gateway.metadata.cache import Metadata, open_metadata
from backgate.gateway.metadata.rows import Known, Subdirectory
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.providers.memory import Fault, Memory
from backgate.gateway.store import ObjectStore
from backgate.gateway.units import SECOND_NS

from .conftest import OpenCache

T = TypeVar("T")
ATTRIBUTES = Attributes(mode=0o100640, uid=7, gid=8, mtime_ns=1_600_000_000_123_456_789)


def away() -> Unreachable:
    return Unreachable("no connection")


def denied() -> Refused:
    return Refused("403")


async def names(metadata: Metadata, prefix: str) -> list[str]:
    found: list[str] = []
    cursor: str | None = None
    while True:
        page, cursor = await metadata.children(prefix, cursor, 2)
        found += [name for name, _ in page]
        if cursor is None:
            return sorted(found)


async def test_a_complete_directory_is_answered_without_a_request(
    open_cache: OpenCache, memory: Memory
) -> None:
    for key in ("a/b", "a/c/d", "a/e"):
        memory.put(key, b"1")
    async with open_cache() as metadata:
        await names(metadata, "a/")
        memory.requests.clear()

        shown = await names(metadata, "a/")
        found = await metadata.look_up("a/b")
        inner = await metadata.look_up_name("a/", "c")
        with pytest.raises(NotFound):
            await metadata.look_up("a/absent")
        with pytest.raises(NotFound):
            await metadata.look_up_name("a/", "absent")

    assert shown == ["b", "c", "e"]
    assert found.info.size == 1
    assert inner == Subdirectory("a/c/", None)
    assert memory.requests == []


async def test_an_unknown_name_is_asked_for_alone(open_cache: OpenCache, memory: Memory) -> None:
    memory.put("a/b", b"12", metadata_from_attributes(ATTRIBUTES))
    async with open_cache() as metadata:
        file = await metadata.look_up_name("a/", "b")
        directory = await metadata.look_up_name("", "a")
        asked = list(memory.requests)
        with pytest.raises(NotFound):
            await metadata.look_up_name("", "absent")

    assert isinstance(file, Known)
    assert (file.info.size, file.attributes, file.is_settled) == (2, ATTRIBUTES, True)
    assert directory == Subdirectory("a/", None)
    assert asked == [("put", "a/b"), ("head", "a/b")]
    assert memory.requests[2:] == [("head", "absent"), ("page", "absent/")]


async def test_callers_share_one_listing_and_get_the_whole_of_it(
    open_cache: OpenCache, memory: Memory, autojump_clock: trio.abc.Clock
) -> None:
    for number in range(25):
        memory.put(f"d/{number:02}", b"1")
    memory.faults = [Fault(verb="page", short=10), Fault(verb="page", times=2, error=away)]
    memory.faults.reverse()
    results: list[list[str]] = []

    async def call(metadata: Metadata) -> None:
        results.append(await names(metadata, "d/"))

    async with open_cache() as metadata, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(call, metadata)

    assert results == [[f"{number:02}" for number in range(25)]] * 5
    pages = [request for request in memory.requests if request[0] == "page"]
    assert len(pages) == 2 + 3


async def test_a_listing_goes_on_when_its_caller_is_gone(
    open_cache: OpenCache, memory: Memory, autojump_clock: trio.abc.Clock
) -> None:
    memory.put("d/x", b"1")
    memory.faults = [Fault(verb="page", times=3, error=away)]
    async with open_cache() as metadata:
        with trio.move_on_after(0.1):
            await metadata.children("d/")
        await trio.sleep(100)
        asked = len(memory.requests)

        shown = await names(metadata, "d/")

    assert shown == ["x"]
    assert len(memory.requests) == asked


async def test_a_directory_that_cannot_be_listed_is_an_error_and_never_empty(
    open_cache: OpenCache,
    memory: Memory,
    autojump_clock: trio.abc.Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory.put("d/x", b"1")
    memory.faults = [Fault(verb="page", error=denied)]
    async with open_cache() as metadata:
        began = trio.current_time()
        with pytest.raises(StoreError, match="403"):
            await metadata.patient(60).children("d/")
        waited = trio.current_time() - began
        with pytest.raises(StoreError, match="403"):
            await metadata.below("d/")
        status = await metadata.status()
        memory.faults.clear()

        assert await names(metadata, "d/") == ["x"]
        assert (await metadata.status()).last_error is None

    assert waited == pytest.approx(60)
    assert status.last_error == "403"
    assert "'d/' cannot be listed, trying again: 403" in caplog.text


async def test_who_waits_for_a_listing_has_it_when_credentials_are_renewed(
    open_cache: OpenCache, memory: Memory, autojump_clock: trio.abc.Clock
) -> None:
    memory.put("d/x", b"1")
    memory.faults = [Fault(verb="page", times=6, error=denied)]
    async with open_cache() as metadata:
        assert await names(metadata, "d/") == ["x"]
        assert trio.current_time() < 200


async def test_an_error_is_told_by_every_process_until_a_listing_succeeds(
    open_cache: OpenCache, memory: Memory, autojump_clock: trio.abc.Clock
) -> None:
    memory.put("d/x", b"1")
    memory.faults = [Fault(verb="page", error=denied)]
    async with open_cache() as metadata:
        with pytest.raises(StoreError, match="403"):
            await metadata.patient(1).children("d/")

    async with open_cache() as metadata:
        before = await metadata.status()
        memory.faults.clear()
        await names(metadata, "d/")
        after = await metadata.status()

    assert (before.last_error, after.last_error) == ("403", None)


@pytest.mark.parametrize("place", ["file"], indirect=True)  # a thousand pauses
async def test_a_bucket_that_is_gone_is_no_reason_to_say_that_a_name_is_not_there(
    open_cache: OpenCache, memory: Memory, autojump_clock: trio.testing.MockClock
) -> None:
    memory.put("d/x", b"1")
    async with open_cache() as metadata:
        await metadata.look_up("d/x")
        memory.faults = [Fault(error=lambda: NotFound("no such bucket"))]

        with pytest.raises(StoreError) as listing:
            await metadata.children("d/")
        with pytest.raises(StoreError) as name:
            await metadata.look_up_name("d/", "y")
        with pytest.raises(StoreError):
            await metadata.refresh()
        known = await metadata.look_up("d/x")

    assert not isinstance(listing.value, NotFound)
    assert not isinstance(name.value, NotFound)
    assert known.info.size == 1


async def test_a_bucket_that_vanishes_and_returns_costs_no_name(
    open_cache: OpenCache, memory: Memory, autojump_clock: trio.abc.Clock
) -> None:
    memory.put("d/x", b"1")
    async with open_cache(writers="shared", max_age=10) as metadata:
        await names(metadata, "d/")
        await trio.sleep(100)
        # A HEAD has no body: the answer for a missing object and a missing bucket is the same.
        memory.faults = [
            Fault(verb="head", error=lambda: NotFound("404", key="e/y")),
            Fault(error=lambda: NotFound("no such bucket")),
        ]
        with pytest.raises(StoreError) as unknown:
            await metadata.look_up("e/y")
        known = await metadata.look_up("d/x")
        shown = await names(metadata, "d/")
        await trio.sleep(1)
        status = await metadata.status()
        memory.faults.clear()
        memory.put("e/y", b"22")
        await trio.sleep(100)
        later = await metadata.look_up("e/y")

        assert (await metadata.status()).last_error is None

    assert not isinstance(unknown.value, NotFound)
    assert (known.info.size, shown, later.info.size) == (1, ["x"], 2)
    assert status.last_error == "no such bucket"


async def test_a_bucket_that_answers_is_not_asked_for_with_every_name(
    open_cache: OpenCache, memory: Memory, autojump_clock: trio.abc.Clock
) -> None:
    async with open_cache() as metadata:
        for number in range(10):
            with pytest.raises(NotFound):
                await metadata.look_up(f"d/{number}")

    assert len([request for request in memory.requests if request[0] == "check"]) == 1


async def test_with_the_store_away_what_is_known_is_answered(
    open_cache: OpenCache, memory: Memory, autojump_clock: trio.abc.Clock
) -> None:
    for key in ("snapshots/1", "data/ab", "other/x"):
        memory.put(key, b"1")
    async with open_cache() as metadata:
        await metadata.complete("snapshots/")
    memory.faults = [Fault(error=away)]

    async with open_cache(crawls=True) as metadata:
        shown = await names(metadata, "snapshots/")
        landmarks = await metadata.landmarks(lambda key: key.startswith("snapshots/"))
        below = await metadata.below("snapshots/")
        with pytest.raises(Unreachable):
            await metadata.patient(60).children("other/")

    assert shown == ["1"]
    assert [info.key for info in landmarks] == ["snapshots/1"]
    assert [info.key for info in below] == ["snapshots/1"]


async def test_a_patient_view_gives_up_earlier_and_shares_what_is_found(
    open_cache: OpenCache, memory: Memory, autojump_clock: trio.abc.Clock
) -> None:
    memory.put("d/x", b"1")
    memory.faults = [Fault(verb="page", error=away)]
    async with open_cache() as metadata:
        view = metadata.patient(60)
        began = trio.current_time()
        with pytest.raises(Unreachable, match="within 60 s"):
            await view.children("d/")
        took = trio.current_time() - began
        memory.faults.clear()
        await trio.sleep(60)

        shown = await names(view, "d/")

    assert took == pytest.approx(60)
    assert shown == ["x"]


async def test_shared_writers_get_an_old_answer_at_once_and_a_refresh_behind_it(
    open_cache: OpenCache, memory: Memory, autojump_clock: trio.abc.Clock
) -> None:
    memory.put("d/x", b"1")
    async with open_cache(writers="shared", max_age=60) as metadata:
        await names(metadata, "d/")
        memory.put("d/y", b"1")
        memory.delete(["d/x"])
        await trio.sleep(30)
        fresh = await names(metadata, "d/")
        asked = len(memory.requests)
        await trio.sleep(31)
        generation = metadata.generation
        old = await names(metadata, "d/")
        await metadata.changed_since(generation)
        new = await names(metadata, "d/")

    assert fresh == old == ["x"]
    assert new == ["y"]
    assert len(memory.requests) == asked + 1


@pytest.mark.parametrize("writers", ["shared", "exclusive"])
async def test_what_is_confirmed_is_as_it_is_now_and_costs_nothing_alone(
    open_cache: OpenCache, memory: Memory, writers: Literal["shared", "exclusive"]
) -> None:
    memory.put("d/x", b"1")
    async with open_cache(writers=writers, max_age=60) as metadata:
        before = [info.key for info in await metadata.below("d/")]
        memory.put("d/y", b"1")
        asked = len(memory.requests)
        await metadata.confirm("d/")
        asked = len(memory.requests) - asked
        after = [info.key for info in await metadata.below("d/")]

    assert before == ["d/x"]
    assert after == (["d/x", "d/y"] if writers == "shared" else before)
    assert asked == (1 if writers == "shared" else 0)


@pytest.mark.parametrize("writers", ["shared", "exclusive"])
async def test_what_is_renewed_is_as_it_is_now_and_lists_nothing(
    open_cache: OpenCache, memory: Memory, writers: Literal["shared", "exclusive"]
) -> None:
    memory.put("d/x", b"1")
    async with open_cache(writers=writers, max_age=60) as metadata:
        await metadata.below("d/")
        memory.put("d/x", b"22")
        asked = len(memory.requests)
        known = await metadata.renewed("d/x")
        asked = len(memory.requests) - asked

    assert known.info.size == (2 if writers == "shared" else 1)
    assert asked == (1 if writers == "shared" else 0)


async def test_a_refresh_that_fails_leaves_the_old_answer(
    open_cache: OpenCache,
    memory: Memory,
    autojump_clock: trio.abc.Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory.put("d/x", b"1")
    async with open_cache(writers="shared", max_age=60) as metadata:
        await names(metadata, "d/")
        await trio.sleep(100)
        memory.faults = [Fault(verb="page", error=denied)]

        shown = await names(metadata, "d/")
        await trio.testing.wait_all_tasks_blocked()
        again = await names(metadata, "d/")
        status = await metadata.status()

    assert shown == again == ["x"]
    assert "could not be refreshed" in caplog.text
    assert status.last_error == "403"


async def test_what_another_version_replaced_loses_its_attributes(
    open_cache: OpenCache, memory: Memory
) -> None:
    async with open_cache() as metadata:
        await metadata.stored(memory.put("x", b"1"), ATTRIBUTES)
        await metadata.refresh()
        kept = await metadata.look_up("x")
        memory.put("x", b"22")
        await metadata.refresh()
        lost = await metadata.look_up("x")
        settled = await metadata.settled("x")

    assert (kept.attributes, kept.is_settled) == (ATTRIBUTES, True)
    assert (lost.info.size, lost.attributes, lost.is_settled) == (2, None, False)
    assert (settled.attributes, settled.is_settled) == (None, True)


async def test_attributes_that_were_changed_here_outlive_a_listing_and_a_restart(
    open_cache: OpenCache, memory: Memory
) -> None:
    async with open_cache() as metadata:
        await metadata.stored(memory.put("x", b"1"), None)
        await metadata.attributes_changed("x", ATTRIBUTES)
        await metadata.directory_made("d/", None)
        await metadata.stored(memory.put("d/", b""), None)
        await metadata.directory_changed("d/", ATTRIBUTES)
        await metadata.refresh()

    async with open_cache() as metadata:
        file = await metadata.settled("x")
        directory = await metadata.look_up_name("", "d")

    assert file.attributes == ATTRIBUTES
    assert directory == Subdirectory("d/", ATTRIBUTES)


async def test_a_marker_tells_the_attributes_of_its_directory(
    open_cache: OpenCache, memory: Memory
) -> None:
    attributes = Attributes(mode=0o40700, uid=7, gid=8, mtime_ns=1)
    info = memory.put("d/", b"", metadata_from_attributes(attributes))
    async with open_cache() as metadata:
        await metadata.stored(info, None)

        assert await metadata.look_up_name("", "d") == Subdirectory("d/", attributes)


async def test_a_directory_that_was_made_here_is_complete_and_empty(
    open_cache: OpenCache, memory: Memory
) -> None:
    async with open_cache() as metadata:
        await metadata.directory_made("d/", ATTRIBUTES)

        assert await metadata.is_empty("d/")
        with pytest.raises(NotFound):
            await metadata.look_up("d/x")

    assert memory.requests == []


async def test_a_directory_stays_when_its_last_file_is_removed_until_it_is_removed_too(
    open_cache: OpenCache, memory: Memory
) -> None:
    memory.put("a/b/c", b"1")
    async with open_cache() as metadata:
        await metadata.complete()
        memory.delete(["a/b/c"])
        await metadata.removed(["a/b/c"])
        shown = await names(metadata, "a/")
        empty = await metadata.is_empty("a/b/")
        await metadata.directory_removed("a/b/")

        assert (shown, empty) == (["b"], True)
        assert await names(metadata, "a/") == []
        assert await names(metadata, "") == ["a"]


async def test_a_name_shared_by_a_file_and_a_directory_finds_both(
    open_cache: OpenCache, memory: Memory
) -> None:
    memory.put("a", b"1")
    memory.put("a/b", b"22")
    async with open_cache() as metadata:
        asked = await metadata.look_up_name("", "%=a")
        shown = await names(metadata, "")
        directory = await metadata.look_up_name("", "a")
        file = await metadata.look_up_name("", "%=a")

    assert shown == ["%=a", "a"]
    assert directory == Subdirectory("a/", None)
    assert isinstance(file, Known)
    assert isinstance(asked, Known)
    assert asked.info.key == file.info.key == "a"


async def test_a_long_name_is_looked_up(open_cache: OpenCache, memory: Memory) -> None:
    key = "d/" + "n" * 300
    memory.put(key, b"1")
    async with open_cache() as metadata:
        (name,) = await names(metadata, "d/")
        found = await metadata.look_up_name("d/", name)

    assert isinstance(found, Known)
    assert found.info.key == key


async def test_a_name_that_shows_no_key_is_not_there(open_cache: OpenCache, memory: Memory) -> None:
    async with open_cache() as metadata:
        with pytest.raises(NotFound):
            await metadata.look_up_name("", "%=%41")

    assert memory.requests == []


async def test_below_knows_what_was_listed_directory_by_directory(
    open_cache: OpenCache, memory: Memory
) -> None:
    keys = [f"data/{number % 3}/{number}" for number in range(9)]
    for key in keys:
        memory.put(key, b"1")
    async with open_cache() as metadata:
        for prefix in ("data/", "data/0/", "data/1/", "data/2/"):
            await names(metadata, prefix)
        memory.requests.clear()

        found = await metadata.below("data/")
        behind = await metadata.below("data/", found[4].key)

    assert [info.key for info in found] == sorted(keys)
    assert [info.key for info in behind] == sorted(keys)[5:]
    assert memory.requests == []


async def test_below_ends_with_an_empty_page(open_cache: OpenCache, memory: Memory) -> None:
    memory.put("p/1", b"1")
    async with open_cache() as metadata:
        assert await metadata.below("p/", "p/1") == []
        assert await metadata.below("q") == []


async def test_an_answer_that_was_asked_for_before_a_deletion_does_not_bring_the_key_back(
    open_cache: OpenCache, memory: Memory
) -> None:
    memory.put("x", b"1")
    async with open_cache() as metadata:
        head = Memory.head

        def late(key: str) -> ObjectInfo:
            info = head(memory, key)
            memory.delete([key])
            at_once(metadata.removed([key]))
            return info

        memory.head = late  # type: ignore[method-assign]
        with pytest.raises(NotFound):
            await metadata.look_up("x")


async def test_the_crawl_completes_the_index_by_itself(
    open_cache: OpenCache,
    memory: Memory,
    autojump_clock: trio.abc.Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    for number in range(30):
        memory.put(f"d/{number}", b"12")
    async with open_cache(crawls=True) as metadata:
        await trio.sleep(10)
        status = await metadata.status()

    assert (status.objects, status.bytes, status.coverage) == (30, 60, 1.0)
    assert not status.is_crawling
    assert "the index is complete: 30 objects" in caplog.text


@pytest.mark.slow
async def test_the_crawl_goes_on_when_credentials_are_renewed(
    open_cache: OpenCache,
    memory: Memory,
    autojump_clock: trio.abc.Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory.put("x", b"1")
    memory.faults = [Fault(verb="page", error=denied)]
    async with open_cache(crawls=True) as metadata:
        await trio.sleep(100)
        before = await metadata.status()
        memory.faults.clear()
        await trio.sleep(1000)
        after = await metadata.status()

    assert (before.is_complete, before.last_error) == (False, "403")
    assert (after.is_complete, after.last_error) == (True, None)
    assert "cannot be completed: 403" in caplog.text


@pytest.mark.slow
async def test_only_one_of_two_caches_crawls(
    open_cache: OpenCache, memory: Memory, autojump_clock: trio.abc.Clock
) -> None:
    memory.put("x", b"1")
    memory.faults = [Fault(verb="page", times=20, error=away)]
    async with open_cache(crawls=True) as one, open_cache(crawls=True) as other:
        await trio.sleep(10)
        crawling = [(await cache.status()).is_crawling for cache in (one, other)]
        await trio.sleep(1000)

        assert sorted(crawling) == [False, True]
        assert (await one.status()).is_complete
        assert (await other.status()).is_complete


async def test_landmarks_follow_changes(open_cache: OpenCache, memory: Memory) -> None:
    def is_landmark(key: str) -> bool:
        asked.append(key)
        return key.endswith(".tar")

    asked: list[str] = []
    for key in ("a.tar", "b", "c/d.tar"):
        memory.put(key, b"1")
    async with open_cache() as metadata:
        await metadata.complete()
        first = await metadata.landmarks(is_landmark)
        asked.clear()
        await metadata.stored(memory.put("e.tar", b"1"), None)
        await metadata.stored(memory.put("f", b"1"), None)
        await metadata.removed(["a.tar"])
        second = await metadata.landmarks(is_landmark)

    assert [info.key for info in first] == ["a.tar", "c/d.tar"]
    assert [info.key for info in second] == ["c/d.tar", "e.tar"]
    assert sorted(asked) == ["a.tar", "e.tar", "f"]


async def test_looking_for_landmarks_of_shared_writers_lists_everything_again_when_old(
    open_cache: OpenCache, memory: Memory, autojump_clock: trio.abc.Clock
) -> None:
    memory.put("a.tar", b"1")
    async with open_cache(writers="shared", max_age=60, crawls=True) as metadata:
        await trio.sleep(10)
        await metadata.landmarks(str.isascii)
        memory.put("b.tar", b"1")
        await trio.sleep(100)
        generation = metadata.generation
        old = await metadata.landmarks(str.isascii)
        await metadata.changed_since(generation)
        new = await metadata.landmarks(str.isascii)

    assert [info.key for info in old] == ["a.tar"]
    assert [info.key for info in new] == ["a.tar", "b.tar"]


async def test_rebuild_forgets_what_is_not_in_the_store(
    open_cache: OpenCache, memory: Memory
) -> None:
    memory.put("x", b"1")
    told: list[tuple[int, int | None]] = []
    async with open_cache() as metadata:
        await metadata.stored(ObjectInfo("ghost", 1, 1, "etag"), None)
        await metadata.rebuild(lambda done, total: told.append((done, total)))
        shown = await names(metadata, "")

    assert shown == ["x"]
    assert told == [(0, 1), (1, 1)]


async def test_refresh_of_a_directory_finds_what_an_exclusive_writer_does_not_expect(
    open_cache: OpenCache, memory: Memory
) -> None:
    async with open_cache() as metadata:
        await metadata.complete()
        memory.put("d/x", b"1")
        memory.put("e/x", b"1")
        before = await names(metadata, "")
        await metadata.refresh("d/")

        assert before == []
        assert await names(metadata, "") == ["d"]


async def test_a_store_below_a_prefix_is_cached_with_relative_keys(
    memory: Memory, tmp_path: Path
) -> None:
    memory.put("xo/a/b", b"1")
    memory.put("other", b"1")
    store = ObjectStore(memory, prefix="xo/")
    async with open_metadata(
        store, tmp_path, writers="exclusive", max_age=1, crawls=False
    ) as metadata:
        await metadata.complete()
        found = await metadata.below("")

    assert [info.key for info in found] == ["a/b"]


@pytest.mark.parametrize("verb", ["children", "names"])
async def test_a_listing_that_may_not_be_old_is_asked_for_once_and_not_for_each_page(
    verb: Literal["children", "names"], open_cache: OpenCache, memory: Memory
) -> None:
    for number in range(20):
        memory.put(f"d/{number:02}", b"1")
    seconds = count()

    def now_ns() -> int:  # one goes by with every look at the clock
        return next(seconds) * SECOND_NS

    async with open_cache(writers="shared", max_age=0, now_ns=now_ns) as metadata:
        ask = getattr(metadata, verb)
        page, cursor = await ask("d/", None, 2)
        asked, shown = len(memory.requests), len(page)
        while cursor is not None:
            page, cursor = await ask("d/", cursor, 2)
            shown += len(page)

    assert shown == 20
    assert len(memory.requests) == asked


class Overtaken:
    """An index of which everything is listed right behind the first question."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata, self._index, self._is_first = metadata, metadata._index, True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    async def read(self, question: Callable[..., T], *arguments: Any) -> T:
        answer: T = await self._index.read(question, *arguments)
        if self._is_first:
            self._is_first = False
            await self._metadata.refresh()
        return answer


@pytest.mark.parametrize("by_name", [False, True], ids=["key", "name"])
async def test_what_a_listing_brings_amid_a_question_is_not_absent(
    open_cache: OpenCache, memory: Memory, *, by_name: bool
) -> None:
    memory.put("d/file", b"content")
    async with open_cache() as metadata:
        metadata._index = cast("Any", Overtaken(metadata))

        found = await (
            metadata.look_up_name("d/", "file") if by_name else metadata.look_up("d/file")
        )

        assert isinstance(found, Known)
        assert found.info.size == len(b"content")

"""A store whose listings agree late: what this gateway did is believed over them for a while."""

import time
from pathlib import Path

import pytest
import trio
import trio.testing

from backgate.gateway.errors import Refused, StoreError
from backgate.gateway.metadata.cache import Metadata, open_metadata
from backgate.gateway.metadata.local import LocalIndex
from backgate.gateway.metadata.settling import opened_settling
from backgate.gateway.provider import Abilities, Listing, ObjectInfo, Page
from backgate.gateway.providers.memory import Fault, Memory
from backgate.gateway.store import ObjectStore

from .conftest import OpenCache

GRACE = 30.0  # seconds


class Late(Memory):
    """Its listings show what it held when they were last brought up to date."""

    def __init__(self, abilities: Abilities) -> None:
        super().__init__("memory:late", abilities)
        self.shown = Memory("memory:shown", abilities)

    def agree(self) -> None:
        """Bring the listings up to date."""
        self.shown._objects, self.shown._sorted = dict(self._objects), None

    def page(
        self,
        prefix: str = "",
        delimiter: str = "",
        *,
        after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> Page:
        return self.shown.page(prefix, delimiter, after=after, token=token, limit=limit)


@pytest.fixture(params=[True, False], ids=["ordered", "unordered"])
def memory(request: pytest.FixtureRequest) -> Late:
    return Late(Abilities(lists_in_order=request.param, listing=Listing(grace=GRACE)))


async def shown(metadata: Metadata, prefix: str = "d/") -> list[str]:
    return [name for name, _ in (await metadata.children(prefix))[0]]


@pytest.mark.parametrize("pause", [0.0, GRACE / 2])
async def test_own_writes_and_deletions_are_believed_over_a_listing_that_is_late(
    open_cache: OpenCache, memory: Late, mock_clock: trio.testing.MockClock, pause: float
) -> None:
    for key in ("d/gone", "d/kept", "e/gone"):
        memory.put(key, b"1")
    memory.agree()
    async with open_cache() as metadata:
        await metadata.complete()
        mock_clock.jump(2 * GRACE)
        await metadata.stored(memory.put("d/new", b"1"), None)
        await metadata.stored(memory.put("d/kept", b"22"), None)
        memory.delete(["d/gone", "e/gone"])
        await metadata.removed(["d/gone", "e/gone"])
        await metadata.directory_removed("e/")
        mock_clock.jump(pause)
        await metadata.refresh()
        flat = await shown(metadata)
        await metadata._parts.crawler.level("d/", 10, is_refresh=True)
        level = await shown(metadata)
        top = await shown(metadata, "")
        kept = await metadata.look_up("d/kept")

    assert flat == level == ["kept", "new"]
    assert top == ["d"]
    assert kept.info.size == 2


async def test_behind_the_grace_time_a_listing_is_believed(
    open_cache: OpenCache, memory: Late, autojump_clock: trio.abc.Clock
) -> None:
    async with open_cache() as metadata:
        await metadata.stored(memory.put("d/lost", b"1"), None)
        await metadata.removed(["d/back"])
        memory.put("d/back", b"1")
        memory.delete(["d/lost"])
        memory.agree()
        await metadata.refresh()
        early = await shown(metadata)
        await trio.sleep(GRACE + 2)
        await metadata.refresh()
        late = await shown(metadata)

    assert early == ["lost"]
    assert late == ["back"]


async def test_where_others_write_too_the_store_is_asked_for_what_no_listing_is_believed_of(
    open_cache: OpenCache, memory: Late
) -> None:
    memory.put("d/back", b"1")
    memory.agree()
    async with open_cache(writers="shared", max_age=0) as metadata:
        await metadata.complete()
        for name in ("gone", "kept", "below/gone"):
            await metadata.stored(memory.put(f"d/{name}", b"1"), None)
        memory.delete(["d/back"])
        await metadata.removed(["d/back"])
        before = await shown(metadata)  # no listing shows any of it yet

        memory.put("d/back", b"of another")  # as another gateway does
        memory.delete(["d/gone"])
        after = await shown(metadata)
        memory.agree()
        late = await shown(metadata)

    assert before == ["below", "gone", "kept"]
    assert after == late == ["back", "below", "kept"]


async def test_a_listing_fails_where_the_store_does_not_answer_for_what_it_may_not_show(
    open_cache: OpenCache, memory: Late
) -> None:
    async with open_cache(writers="shared", max_age=0) as metadata:
        await metadata.stored(memory.put("d/new", b"1"), None)
        memory.faults.append(Fault(verb="head", key="d/new", error=lambda: Refused("denied")))

        with pytest.raises(StoreError):
            await shown(metadata)


async def test_what_an_earlier_process_did_is_believed_as_long(
    open_cache: OpenCache, memory: Late, autojump_clock: trio.abc.Clock
) -> None:
    memory.put("d/gone", b"1")
    memory.agree()
    async with open_cache() as metadata:
        await metadata.complete()
        await metadata.stored(memory.put("d/new", b"1"), None)
        memory.delete(["d/gone"])
        await metadata.removed(["d/gone"])

    async with open_cache() as metadata:
        await metadata.refresh()
        early = await shown(metadata)
        await trio.sleep(GRACE + 2)
        await metadata.refresh()
        late = await shown(metadata)

    assert (early, late) == (["new"], ["gone"])


async def test_a_rebuild_forgets_no_own_write_that_no_listing_shows_yet(
    open_cache: OpenCache, memory: Late, autojump_clock: trio.abc.Clock
) -> None:
    memory.put("d/gone", b"1")
    memory.agree()
    async with open_cache() as metadata:
        await metadata.complete()
        await metadata.stored(memory.put("d/new", b"1"), None)
        memory.delete(["d/gone"])
        await metadata.removed(["d/gone"])
        await metadata.rebuild(lambda done, total: None)

        assert await shown(metadata) == ["new"]
        status = await metadata.status()

    assert (status.objects, status.bytes) == (1, 1)


async def test_a_removed_directory_does_not_come_back_with_a_look_at_its_name(
    open_cache: OpenCache, memory: Late, mock_clock: trio.abc.Clock
) -> None:
    memory.put("d/x", b"1")
    memory.agree()
    async with open_cache(writers="shared", max_age=0) as metadata:
        await metadata.complete()
        memory.delete(["d/x"])
        await metadata.removed(["d/x"])
        await metadata.directory_removed("d/")
        await metadata.refresh()

        assert await shown(metadata, "") == []


@pytest.mark.slow
async def test_no_moment_is_remembered_for_longer_than_it_matters(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    memory = Late(Abilities(listing=Listing(grace=GRACE)))
    begun = time.monotonic()  # the index notes one moment in a second that really passes
    async with open_metadata(
        ObjectStore(memory), tmp_path, writers="exclusive", max_age=60, crawls=False
    ) as metadata:
        for number in range(9_000):
            await metadata.stored(ObjectInfo(f"{number}", 1, 1, ""), None)
        await trio.sleep(2 * GRACE)
        for number in range(9_000):
            await metadata.stored(ObjectInfo(f"{number}", 1, 1, ""), None)
        await trio.sleep(2)
        rows = await metadata._index.read(
            lambda db: db.execute("SELECT count(*) FROM moment").fetchone()[0]
        )
        kept = len(metadata._parts.settling._moments)

    assert rows <= 3 + time.monotonic() - begun
    assert kept <= GRACE + 3


async def test_a_clock_that_was_set_back_makes_own_writes_no_older(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    index = LocalIndex(tmp_path)
    ahead_ns = 4_000_000_000_000_000_000  # in the year 2096
    change = "INSERT INTO moment (sequence, at_ns) VALUES (?, ?)"
    await index.write(lambda transaction: transaction.db.execute(change, (7, ahead_ns)))
    settling = await opened_settling(index, GRACE)

    early = settling.settled(10)
    await trio.sleep(GRACE + 1)
    late = settling.settled(12)
    await index.aclose()

    assert early == 0
    assert late >= 7

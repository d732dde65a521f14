"""Whatever happens around the pages of a listing, no name is lost and none comes back."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.at_once import at_once

from backgate.gateway.errors import StoreError, Unreachable
from backgate.gateway.metadata import coverage, spans
from backgate.gateway.metadata.cache import Metadata, open_metadata
from backgate.gateway.metadata.children import children
from backgate.gateway.metadata.names import objects_below
from backgate.gateway.metadata.rows import Known, Subdirectory
from backgate.gateway.provider import Abilities, Listing, Page
from backgate.gateway.providers.memory import Memory
from backgate.gateway.store import ObjectStore

KEYS = [
    "A",
    "a",
    "a-",
    "a.b",
    "a/",
    "a/-",
    "a/b",
    "a/b/c",
    "a/b/d",
    "a0",
    "b//",
    "b//c",
    "c",
    "é/x",
]
PREFIXES = ["", "a/", "a/b/", "b/", "b//", "é/"]

keys = st.sampled_from(KEYS)


@dataclass(frozen=True)
class Event:
    """Something that happens around one page."""

    what: str  # put, delete: ours; plant, pluck: somebody else's; fail; crash; list, list flat
    key: str = ""  # or prefix
    is_before: bool = True  # the store has it before the page is made
    is_noted: bool = False  # the index has it before the page comes back


own = st.builds(Event, st.sampled_from(["put", "delete"]), keys, st.booleans(), st.booleans())
foreign = st.builds(Event, st.sampled_from(["plant", "pluck"]), keys, st.booleans())
other = st.builds(
    Event, st.sampled_from(["fail", "crash", "list", "list flat"]), st.sampled_from(PREFIXES)
)
scripts = st.lists(st.lists(own | foreign | other, max_size=3), max_size=12)
own_scripts = st.lists(st.lists(own | other, max_size=3), max_size=12)


class Crash(BaseException):
    """The process is gone."""


class World(Memory):
    """A store in which the next events of a script happen around each page."""

    def __init__(self, script: list[list[Event]], page_size: int, *, is_ordered: bool) -> None:
        super().__init__("memory:world", Abilities(lists_in_order=is_ordered))
        self.script: Iterator[list[Event]] = iter(())
        self.events, self.page_size = script, page_size
        self.touched: set[str] = set()  # by somebody else: what is shown of it may be old
        self.claimed = self.abilities
        self.metadata: Metadata | None = None
        self.nursery: trio.Nursery | None = None

    def page(
        self,
        prefix: str = "",
        delimiter: str = "",
        *,
        after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> Page:
        self.judge()
        events = next(self.script, [])
        limit = min(limit, self.page_size)
        happened: list[Event] = []
        try:
            for event in (event for event in events if event.is_before):
                self.happen(event, happened)
            page = super().page(prefix, delimiter, after=after, token=token, limit=limit)
            for event in (event for event in events if not event.is_before):
                self.happen(event, happened)
        finally:
            for event in happened:
                self.note(event)
        self.judge()
        return page

    def happen(self, event: Event, happened: list[Event]) -> None:
        if event.what == "fail":
            raise Unreachable("told to fail")
        if event.what == "crash":
            self.nursery = None
            raise Crash
        if event.what.startswith("list"):
            if self.nursery is not None:
                self.nursery.start_soon(self.look_on, event)
        elif event.what in ("put", "plant"):
            self.put(event.key, b"" if event.key.endswith("/") else b"body")
        else:
            self.delete([event.key])
        if event.what in ("plant", "pluck"):
            self.touched.add(event.key)
        elif event.is_noted:
            self.note(event)
        else:
            happened.append(event)

    def note(self, event: Event) -> None:
        """Tell the cache of an own write; of several to one key, only the last is told."""
        assert self.metadata is not None
        if event.what == "put" and event.key in self._objects:
            at_once(self.metadata.stored(self._objects[event.key].info, None))
        elif event.what == "delete" and event.key not in self._objects:
            at_once(self.metadata.removed([event.key]))

    async def look_on(self, event: Event) -> None:
        assert self.metadata is not None
        with suppress(StoreError):  # the listing crashed
            await self._look_on(self.metadata, event)

    async def _look_on(self, metadata: Metadata, event: Event) -> None:
        if event.what == "list":
            page, _ = await metadata.children(event.key)
            self.judge_level(event.key, [one for _, one in page])
        else:
            infos = await metadata.below(event.key)
            held = {key for key in self._objects if key.startswith(event.key)}
            assert {info.key for info in infos} ^ held <= self.touched

    def judge(self) -> None:
        """Every directory that counts as complete shows what the store holds."""
        if self.metadata is None:
            return
        index = self.metadata._index
        for prefix in PREFIXES:
            if at_once(index.read(coverage.level_confirmed, spans.encoded(prefix))) is None:
                continue
            page, _ = at_once(index.read(children, prefix, None, 100))
            self.judge_level(prefix, [one for _, one in page])

    def judge_level(self, prefix: str, found: list[Known | Subdirectory]) -> None:
        files = {one.info.key for one in found if isinstance(one, Known)}
        directories = {one.prefix for one in found if not isinstance(one, Known)}
        held = {key for key in self._objects if key.startswith(prefix) and key != prefix}
        below = {key for key in held - self.touched if "/" in key[len(prefix) :]}
        level = {key for key in held if "/" not in key[len(prefix) :]}
        assert files ^ level <= self.touched, (prefix, files, level)
        assert {prefix + key[len(prefix) :].split("/")[0] + "/" for key in below} <= directories


async def live(world: World, directory: Path, *, is_known: bool) -> None:
    """Fill the cache, crashing and starting again, and in the end list once in peace."""
    store = ObjectStore(world, patience=3600.0)
    store.abilities = world.claimed
    cache = {"writers": "exclusive", "max_age": 60.0, "crawls": False}
    if is_known:
        async with open_metadata(store, directory, **cache) as metadata:  # type: ignore[arg-type]
            await metadata.complete()
    world.script = iter(world.events)
    while True:
        try:
            async with open_metadata(store, directory, **cache) as metadata:  # type: ignore[arg-type]
                world.metadata = metadata
                async with trio.open_nursery() as nursery:
                    world.nursery = nursery
                    await metadata.refresh()
                    world.nursery = None
                world.judge()
                for _ in world.script:
                    pass
                await metadata.refresh()
                known = await metadata._index.read(objects_below, b"", b"", 1000)
                assert [one.info.key for one in known] == sorted(world._objects)
                status = await metadata.status()
                assert (status.objects, status.bytes) == (
                    len(world._objects),
                    sum(one.info.size for one in world._objects.values()),
                )
                world.metadata = None
                return
        except* Crash:
            world.metadata = world.nursery = None


def run(world: World, held: set[str], *, is_known: bool) -> None:
    for key in held:
        Memory.put(world, key, b"" if key.endswith("/") else b"body")
    with tempfile.TemporaryDirectory() as directory:
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(lambda: live(world, Path(directory), is_known=is_known), clock=clock)


held_keys = st.sets(keys)
sizes = st.integers(1, 6)


@pytest.mark.slow
@settings(deadline=None, max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(held_keys, own_scripts, sizes, st.booleans(), st.booleans())
def test_a_complete_directory_is_what_the_store_holds_while_only_we_write(
    held: set[str], script: list[list[Event]], size: int, is_known: bool, is_ordered: bool
) -> None:
    run(World(script, size, is_ordered=is_ordered), held, is_known=is_known)


@pytest.mark.slow
@settings(deadline=None, max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(held_keys, scripts, sizes, st.booleans(), st.booleans())
def test_what_nobody_else_touches_is_never_missing_and_never_comes_back(
    held: set[str], script: list[list[Event]], size: int, is_known: bool, is_ordered: bool
) -> None:
    run(World(script, size, is_ordered=is_ordered), held, is_known=is_known)


@pytest.mark.slow
@settings(deadline=None, max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(held_keys, scripts, sizes)
def test_a_store_that_only_claims_to_list_in_order_is_found_out(
    held: set[str], script: list[list[Event]], size: int
) -> None:
    world = World(script, size, is_ordered=False)
    world.claimed = Abilities(lists_in_order=True, listing=Listing(order_is_sure=False))

    run(world, held, is_known=False)

"""The metadata cache of a repository: which objects there are, without waiting for a listing.

A directory that is known completely is answered from the index; with shared writers, when that is
old, a refresh runs behind the answer. One that is not is listed first, and the caller waits for the
whole of it. A single name does not wait for that: the store is asked for it alone. `NotFound` is
always a sure answer; that nobody could be asked is another `StoreError`.
"""

import copy
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import trio

from backgate.gateway.attributes import Attributes
from backgate.gateway.errors import InvalidKey, NotFound, StoreError
from backgate.gateway.keys import component_of, parent_of
from backgate.gateway.metadata import coverage, names, own, progress, spans
from backgate.gateway.metadata.answers import Answers
from backgate.gateway.metadata.asking import Asking, Bucket
from backgate.gateway.metadata.audit import Audit
from backgate.gateway.metadata.children import Child, children, listed, long_named
from backgate.gateway.metadata.crawler import Crawler
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.freshness import Freshness, Writers
from backgate.gateway.metadata.health import Errors, Requests
from backgate.gateway.metadata.landmarks import IsLandmark, Landmarks
from backgate.gateway.metadata.listings import Listings
from backgate.gateway.metadata.place import Shared, opened_index
from backgate.gateway.metadata.rows import Known, Subdirectory, packed
from backgate.gateway.metadata.settling import opened_settling
from backgate.gateway.metadata.status import Activity, MetadataStatus, status
from backgate.gateway.metadata.upkeep import Parts, Upkeep
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.store import ObjectStore

PAGE = 1000  # names in one answer; some milliseconds of trio's thread
HASTY = 2.0  # seconds that who only counts or tells waits for an index that is away

Progress = Callable[[int, int | None], None]  # objects listed, of how many


@asynccontextmanager
async def open_metadata(
    store: ObjectStore,
    place: Path | Shared,
    *,
    writers: Writers,
    max_age: float,
    crawls: bool = True,
    now_ns: Callable[[], int] = time.time_ns,
) -> "AsyncIterator[Metadata]":
    """Open the index at `place` and, with `crawls`, keep it whole for as long as it is open.

    Raises `StoreError` when no index can be made there.
    """
    index = await opened_index(place)
    try:
        settling = await opened_settling(index, store.abilities.listing.grace)
        page_size = (await index.read(progress.progress)).page_size
        crawler = Crawler(store, index, settling, now_ns, page_size)
        hasty = index.patient(HASTY)
        errors, requests = Errors(hasty, now_ns), Requests(store, hasty)
        freshness, bucket = Freshness(writers, max_age, now_ns), Bucket()
        asking = Asking(store, index, settling, bucket)
        async with trio.open_nursery() as nursery:
            listings = Listings(crawler, nursery, store.patience, errors)
            parts = Parts(index, crawler, listings, settling, errors, requests)
            upkeep = Upkeep(parts)
            nursery.start_soon(upkeep.follow)
            if crawls:
                nursery.start_soon(index.check)
                nursery.start_soon(upkeep.crawl)
                nursery.start_soon(Audit(index, asking, freshness).run)
            metadata = Metadata(store, parts, asking, bucket, upkeep, freshness)
            await metadata.status()  # from now on it can be told while the index cannot be asked
            yield metadata
            nursery.cancel_scope.cancel()
        await requests.note()
    finally:
        await index.aclose()


class Metadata:
    """What is known of the objects of `store`, for any number of tasks.

    All methods that are awaited raise `StoreError` when something is not known and the store could
    not be asked for it in time. Own writes are committed when their method returns; no page or
    answer that was asked for earlier undoes them.
    """

    def __init__(
        self,
        store: ObjectStore,
        parts: Parts,
        asking: Asking,
        bucket: Bucket,
        upkeep: Upkeep,
        freshness: Freshness,
    ) -> None:
        self._parts = parts
        self._index = parts.index.patient(store.patience)
        self._upkeep, self._freshness = upkeep, freshness
        self._asking, self._bucket = asking, bucket
        self._answers = Answers(self._index, parts.listings, asking, freshness)
        self._landmarks = Landmarks()
        self._told: MetadataStatus | None = None  # when it was last asked
        self._store = store

    def patient(self, patience: float) -> "Metadata":
        """Return the same cache for callers who wait no longer than `patience` seconds."""
        other = copy.copy(self)
        other._store = self._store.patient(patience)
        other._index = self._index.patient(patience)
        other._asking = self._asking.patient(other._store, other._index)
        other._answers = self._answers.patient(patience, other._index, other._asking)
        return other

    @property
    def generation(self) -> int:
        """The number of the last change that is known of; it only grows."""
        return self._index.generation

    async def changed_since(self, generation: int) -> None:
        """Return once something has changed behind `generation`."""
        await self._index.changes.wait(generation)

    def found_since(self, generation: int) -> set[str] | None:
        """Return keys, and prefixes of directories, that were found to have changed in the store.

        Changes that were made through this cache are not among them. None: it is not known which.
        """
        found = self._index.changes.found_since(generation)
        return None if found is None else {spans.decoded(key) for key in found}

    def has_spared(self, key: str, generation: int, *, with_below: bool = False) -> bool:
        """True when surely nothing has changed of `key` behind `generation`.

        Nor, `with_below`, of what would be in the directory `key/`.
        """
        changes = self._index.changes
        return changes.spared(spans.encoded(key), generation, with_below=with_below)

    async def look_up(self, key: str) -> Known:
        """Return the object `key`; `NotFound` when there surely is none."""
        await trio.lowlevel.checkpoint_if_cancelled()
        raw, parent = spans.encoded(key), parent_of(key)
        found = await self._index.read(names.object_at, raw)
        if found is not None and self._freshness.is_exclusive:
            return found
        found, is_known = await self._answers.name(parent, raw, lambda db: names.object_at(db, raw))
        if not is_known:
            return await self._asking.look_up(key, found)
        if found is None:
            raise NotFound(f"{self._store.name}: no object {key!r}", key=key)
        return found

    async def current(self, key: str) -> Known:
        """Return the object `key` as the store has it now, whatever is known of it."""
        return await self._asking.look_up(key, None)

    async def renewed(self, key: str) -> Known:
        """Return the object `key` as it is now; the store is asked where others write to it."""
        return await (self.look_up(key) if self._freshness.is_exclusive else self.current(key))

    async def settled(self, key: str) -> Known:
        """Return the object `key` with the attributes that are kept with it."""
        found = await self.look_up(key)
        return found if found.is_settled else await self._asking.look_up(key, None)

    async def look_up_name(self, prefix: str, name: str) -> Known | Subdirectory:
        """Return what the directory `prefix` ("" is the root) shows as `name`, or `NotFound`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            component = component_of(name)
        except InvalidKey as error:
            raise NotFound(str(error)) from error
        text = component.text
        if component.is_abbreviated:
            text = await self._long_named(prefix, name, text)
        path = prefix + text
        raw = spans.encoded(path)

        def question(db: Database) -> Known | Subdirectory | None:
            file, directory = names.named(db, raw)
            beside = file if directory is not None else None
            return beside if component.is_beside else directory or file

        found = await self._index.read(question)
        if found is not None and self._freshness.is_exclusive:
            return found
        found, is_known = await self._answers.name(prefix, raw, question)
        if is_known:
            if found is None:
                raise NotFound(f"{self._store.name}: no {name!r} in {prefix!r}", key=path)
            return found
        return await self._asking.name(path, found, is_beside=component.is_beside)

    async def children(
        self, prefix: str, cursor: str | None = None, limit: int = PAGE
    ) -> tuple[list[Child], str | None]:
        """Return the next children of the directory `prefix` and a cursor, None after the last.

        Whole, or it waits, or `StoreError`. A directory that does not exist has no children.
        """
        start = None if cursor is None else spans.encoded(cursor)
        found, stop = await self._answers.level(
            prefix, lambda db: children(db, prefix, start, limit), goes_on=cursor is not None
        )
        return found, None if stop is None else spans.decoded(stop)

    async def names(
        self, prefix: str, cursor: str | None = None, limit: int = PAGE
    ) -> tuple[list[Child | bytes], str | None]:
        """Return the same as `children`; of most files only the name, which is quicker."""
        start = None if cursor is None else spans.encoded(cursor)
        found, stop = await self._answers.level(
            prefix, lambda db: listed(db, prefix, start, limit), goes_on=cursor is not None
        )
        return found, None if stop is None else spans.decoded(stop)

    async def is_empty(self, prefix: str) -> bool:
        """True when nothing is in the directory `prefix`."""
        # The marker may be one of two.
        found, _ = await self._answers.level(prefix, lambda db: children(db, prefix, None, 2))
        return not found

    async def is_empty_in_store(self, prefix: str) -> bool:
        """True when the store says now that nothing is below `prefix` but its marker."""
        return await self._asking.is_empty(prefix)

    async def below(self, prefix: str, after: str = "") -> list[ObjectInfo]:
        """Return the next objects whose keys begin with `prefix`; none: there are no more."""
        raw, behind = spans.encoded(prefix), spans.encoded(after)
        found = await self._answers.everything(
            prefix, lambda db: names.objects_below(db, raw, behind, PAGE)
        )
        return [one.info for one in found]

    async def complete(self, prefix: str = "") -> None:
        """Return once every object whose key begins with `prefix` is known."""
        await self._answers.everything(prefix, lambda _: None)

    async def landmarks(self, is_landmark: IsLandmark) -> list[ObjectInfo]:
        """Return all known objects for whose key `is_landmark` is true, ascending.

        What the index does not know yet is not among them; `complete` waits for that. Asking again
        with an equal function is cheap.
        """
        now = await self._index.read(progress.progress)
        confirmed = await self._index.read(coverage.span_confirmed, spans.FIRST, spans.END)
        is_old = not self._freshness.is_fresh_pass(confirmed, now.took_ns)
        if is_old and not now.is_due:
            with suppress(StoreError):  # no room: what is known is answered
                await self._index.write(progress.begin_crawl)
        return await self._landmarks.objects(self._index, is_landmark)

    async def stored(self, info: ObjectInfo, attributes: Attributes | None) -> None:
        """Note an object that was stored; without attributes, those in `info.metadata` count."""
        await self._index.note(own.stored, info, self._asking.packed(info, attributes))

    async def removed(self, keys: Iterable[str]) -> None:
        """Note objects that were deleted; the directories that they were in remain."""
        await self._index.note(own.removed, [spans.encoded(key) for key in keys])

    async def attributes_changed(self, key: str, attributes: Attributes) -> None:
        """Note attributes of an object that are newer than those kept with it."""
        await self._index.note(own.attributes_changed, spans.encoded(key), packed(attributes))

    async def directory_made(self, prefix: str, attributes: Attributes | None) -> None:
        """Note a directory that was made: it is empty, and complete."""
        data = None if attributes is None else packed(attributes)
        now_ns = self._freshness.now_ns()
        await self._index.note(own.directory_made, spans.encoded(prefix), data, now_ns)

    async def directory_removed(self, prefix: str) -> None:
        """Note an empty directory that was removed, with its marker."""
        await self._index.note(own.directory_removed, spans.encoded(prefix))

    async def directory_changed(self, prefix: str, attributes: Attributes) -> None:
        """Note attributes of a directory."""
        await self._index.note(own.directory_changed, spans.encoded(prefix), packed(attributes))

    async def refresh(self, prefix: str = "") -> None:
        """List everything below `prefix` again, and return when that is done."""
        patience = self._store.patience
        if prefix:
            await self._parts.crawler.flat(prefix, patience, is_refresh=True)
        else:
            await self._upkeep.list_everything(patience, trio.lowlevel.checkpoint)

    async def confirm(self, prefix: str) -> None:
        """Return once everything below `prefix` is known as it is now, whoever wrote it."""
        if self._freshness.is_exclusive:
            await self.complete(prefix)
        else:
            await self.refresh(prefix)

    async def rebuild(self, progress_made: Progress) -> None:
        """Forget everything, list it again, and return when that is done."""
        total = (await self._index.read(progress.progress)).objects or None
        settled = self._parts.settling.settled(await self._index.read(coverage.sequence))
        await self._index.write_behind(total or 0, coverage.forget_all, settled)

        async def before_page() -> None:
            progress_made((await self._index.read(progress.progress)).objects, total)
            await trio.lowlevel.checkpoint()

        await self._upkeep.list_everything(self._store.patience, before_page)
        await before_page()

    async def status(self) -> MetadataStatus:
        """Return how complete the index is, and how listings have gone.

        While the index cannot be asked, what it said last.
        """
        hasty = self._index.patient(HASTY)
        try:
            with trio.fail_after(2 * HASTY):
                await self._parts.requests.note()
                size = await hasty.size()
                self._told = await hasty.read(status, size, self._freshness, self._activity())
        except (StoreError, trio.TooSlowError):
            if self._told is None:
                raise
            self._told = replace(self._told, index_trouble=self._index.trouble)
        return self._told

    def _activity(self) -> Activity:
        return Activity(
            self._upkeep.is_crawling,
            self._parts.crawler.page_size,
            self._store.abilities.listing.price,
            self._index.trouble,
            self._bucket.trouble,
        )

    async def _long_named(self, prefix: str, name: str, beginning: str) -> str:
        """Return the component that is shown under the abbreviated `name`."""
        found = await self._answers.level(
            prefix, lambda db: long_named(db, prefix, name, beginning)
        )
        if found is None:
            raise NotFound(f"{self._store.name}: no {name!r} in {prefix!r}")
        return found

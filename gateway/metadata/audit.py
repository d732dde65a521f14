"""Compare samples of the index with the store, so that drift is seen and not only feared.

Where only this gateway is said to write, an object that has changed means that somebody else does,
or that something is broken: it is said, mended, and everything is listed again.
"""

import logging
import random
from collections.abc import Callable

import trio

from backgate.gateway.errors import NotFound, StoreError
from backgate.gateway.metadata import names, progress, spans
from backgate.gateway.metadata.asking import Asking
from backgate.gateway.metadata.freshness import Freshness
from backgate.gateway.metadata.index import Index
from backgate.gateway.metadata.rows import Known
from backgate.gateway.provider import ObjectInfo

EVERY = 3600.0  # seconds from one sample to the next
SAMPLE = 8  # objects; in a month six thousand requests, less than a cent anywhere

log = logging.getLogger(__name__)


class Audit:
    """Asks for a few objects of `index` now and then."""

    def __init__(
        self,
        index: Index,
        asking: Asking,
        freshness: Freshness,
        choose: Callable[[int], int] = random.randrange,
    ) -> None:
        self._index, self._asking, self._freshness = index, asking, freshness
        self._choose = choose

    async def run(self) -> None:
        """Compare a sample every hour; a store that does not answer is asked the next time."""
        while True:
            await trio.sleep(EVERY)
            try:
                if not (await self._index.read(progress.progress)).is_due:
                    await self.once()
            except StoreError as error:
                log.info("nothing is compared with the store: %s", error)

    async def once(self) -> int:
        """Compare one sample; returns how many objects were not as the index had them."""
        audited, drifted = 0, 0
        for _ in range(SAMPLE):
            known = await self._some_object()
            if known is None:
                break
            try:
                is_same = await self._is_same(known)
            except StoreError as error:
                log.info("nothing is compared with the store: %s", error)
                break
            audited += 1
            drifted += not is_same
        await self._index.write(progress.compared, audited, drifted)
        if drifted and self._freshness.is_exclusive:
            await self._index.write(progress.begin_crawl)
        return drifted

    async def _some_object(self) -> Known | None:
        count = (await self._index.read(progress.progress)).objects
        if not count:
            return None
        return await self._index.read_behind(names.object_number, self._choose(count))

    async def _is_same(self, known: Known) -> bool:
        before = known.info
        generation = self._index.generation
        try:
            now: ObjectInfo | None = (await self._asking.look_up(before.key, None)).info
        except NotFound:
            now = None
        if now is not None and _is_same_version(before, now):
            return True
        if generation != self._index.generation and self._is_own(before.key, generation):
            return True
        level = logging.WARNING if self._freshness.is_exclusive else logging.DEBUG
        what = "is gone" if now is None else "is another version"
        log.log(level, "%r %s in the store: somebody else has changed it", before.key, what)
        return False

    def _is_own(self, key: str, generation: int) -> bool:
        """True when this gateway has changed the object since."""
        changed = self._index.changes.since(generation)
        found = self._index.changes.found_since(generation)
        raw = spans.encoded(key)
        return changed is None or found is None or (raw in changed and raw not in found)


def _is_same_version(before: ObjectInfo, now: ObjectInfo) -> bool:
    knows_etags = before.etag and now.etag
    return before.size == now.size and (not knows_etags or before.etag == now.etag)

"""Why listings fail, and what they cost: kept in the index, for every process to tell."""

from collections.abc import Callable
from contextlib import suppress

from backgate.gateway.errors import StoreError
from backgate.gateway.metadata import progress
from backgate.gateway.metadata.index import Index
from backgate.gateway.store import ObjectStore

VERB = "page"  # what the store's counters call a LIST request


class Errors:
    """Remembers why the latest listing has failed, until one succeeds."""

    def __init__(self, index: Index, now_ns: Callable[[], int]) -> None:
        self._index, self._now_ns = index, now_ns
        self._is_noted = True  # there may be one of an earlier process

    async def failed(self, error: StoreError) -> None:
        """Note that a listing has failed for good, or goes on failing."""
        self._is_noted = True
        with suppress(StoreError):  # then it is the disk that has the blame
            await self._index.write(progress.failed, str(error), self._now_ns())

    async def succeeded(self) -> None:
        """Note that a listing has succeeded."""
        if self._is_noted:
            with suppress(StoreError):
                await self._index.write(progress.succeeded)
                self._is_noted = False


class Requests:
    """Adds the listings that this process asks for to those of all others."""

    def __init__(self, store: ObjectStore, index: Index) -> None:
        self._counters, self._index = store.counters, index
        self._noted = self._counters.requests[VERB]

    async def note(self) -> None:
        """Bring the index up to date."""
        count = self._counters.requests[VERB] - self._noted
        if count:
            with suppress(StoreError):
                await self._index.write(progress.requested, count)
                self._noted += count

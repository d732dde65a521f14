"""Begin and end multipart uploads so that none outlives its use, whatever happens to the gateway.

The journal knows of each before the store does. One whose beginning was cut short, by a crash or by
an answer that was lost, is looked for at the next start; one that was begun and not ended is
aborted then. Uploads that others began are never touched: only those of a key that was announced
here, and not begun before that.
"""

import logging
import time
from collections.abc import Mapping

import trio

from backgate.gateway.errors import StoreError
from backgate.gateway.journal import Journal
from backgate.gateway.records import Began, Beginning, Ended, Found
from backgate.gateway.store import ObjectStore
from backgate.gateway.units import SECOND_NS

SKEW_NS = 600 * SECOND_NS  # how far a store's clock may be behind this machine's

log = logging.getLogger(__name__)


class Uploads:
    """The multipart uploads of one spool."""

    def __init__(self, store: ObjectStore, journal: Journal, nursery: trio.Nursery) -> None:
        self._store, self._journal, self._nursery = store, journal, nursery
        self._last = max(journal.state.beginnings, default=0)

    async def begin(self, key: str, metadata: Mapping[str, str]) -> str:
        """Begin an upload of `key`, and return the store's name for it."""
        self._last += 1
        number, retries = self._last, self._store.counters.retries
        self._journal.append(Beginning(number, key, time.time_ns()))
        upload = await self._store.begin_upload(key, metadata)
        self._journal.append(Began(upload, key))
        if self._store.counters.retries == retries:  # else an answer may have been lost
            self._journal.append(Found(number))
        await self._journal.synchronize()
        return upload

    def ended(self, upload: str) -> None:
        """Note that an upload was committed."""
        self._journal.append(Ended(upload))

    def give_up(self, key: str, upload: str) -> None:
        """Abort an upload in the background: the store may be away."""
        self._nursery.start_soon(self.abort, key, upload)

    async def abort(self, key: str, upload: str) -> None:
        """Abort an upload; the next start tries again what fails."""
        try:
            await self._store.abort_upload(key, upload)
            self._journal.append(Ended(upload))
        except (StoreError, OSError) as error:
            log.info("an upload of %r stays until the next start: %s", key, error)

    async def find(self, beginning: Beginning) -> None:
        """Abort what became of a beginning that an earlier run of the gateway left in doubt."""
        try:
            for one in await self._store.uploads(beginning.key):
                is_later = not one.begun_ns or one.begun_ns > beginning.at_ns - SKEW_NS
                if one.key == beginning.key and is_later:
                    log.info("an abandoned upload of %r is aborted", one.key)
                    await self._store.abort_upload(one.key, one.upload)
            self._journal.append(Found(beginning.number))
        except (StoreError, OSError) as error:
            log.info("uploads of %r are looked for at the next start: %s", beginning.key, error)

"""Hidden objects: bytes of files being written that had to leave the spool, and objects that were
unlinked open.

They lie below `.backgate/`, which the tree does not show. The journal knows each before it exists,
so that none outlives its use, whatever happens to the gateway. It is told of several at a time:
each telling waits for the disk.
"""

import logging
from collections.abc import Iterable
from contextlib import suppress

import trio

from backgate.gateway.attributes import Attributes
from backgate.gateway.deletions import Deletions
from backgate.gateway.errors import StoreError
from backgate.gateway.journal import Journal
from backgate.gateway.provider import Body, ObjectInfo
from backgate.gateway.records import HIDDEN, Aside, Cleared
from backgate.gateway.renames import Renames
from backgate.gateway.store import ObjectStore

AHEAD = 16  # keys announced at a time at most; the first ones fewer, for one file may be all

log = logging.getLogger(__name__)


class Asides:
    """The hidden objects of one spool."""

    def __init__(
        self,
        store: ObjectStore,
        journal: Journal,
        deletions: Deletions,
        nursery: trio.Nursery,
        gateway: str,
    ) -> None:
        self._store, self._journal = store, journal
        self._deletions, self._nursery = deletions, nursery
        self._going: set[str] = set()  # keys that are being deleted
        self._gone = trio.Event()
        prefix = f"{HIDDEN}{gateway}/"
        numbers = [key.removeprefix(prefix) for key in journal.state.asides]
        self._prefix = prefix
        self._last = max((int(number) for number in numbers if number.isdigit()), default=0)
        self._announced: list[str] = []  # keys that the journal knows, and nobody uses yet
        self._made = 0  # keys that were given out
        self._announcing = trio.Lock()

    async def put(self, body: Body) -> ObjectInfo:
        """Store `body` as a hidden object."""
        return await self._store.put(await self._key(), body)

    async def copy(
        self, info: ObjectInfo, attributes: Attributes | None, renames: Renames
    ) -> ObjectInfo:
        """Make a hidden copy of an object that is about to go, for those who have it open."""
        return await renames.copy(info, attributes, await self._key())

    def remove(self, keys: Iterable[str]) -> None:
        """Delete hidden objects in the background; the next start tries again what fails."""
        for key in keys:
            if key in self._journal.state.asides and key not in self._going:
                self._going.add(key)
                self._nursery.start_soon(self._remove, key)

    async def removed(self) -> None:
        """Return once all that is being deleted is, or cannot be for now."""
        while self._going:
            await self._gone.wait()

    def close(self) -> None:
        """Forget what was announced and never made."""
        if self._announced:
            with suppress(OSError):  # then the next start deletes what is not there
                self._journal.append(Cleared(self._announced))
            self._announced = []

    async def _key(self) -> str:
        """Return a key of which the journal knows, on disk."""
        async with self._announcing:
            if not self._announced:
                first, count = self._last + 1, min(self._made + 1, AHEAD)
                self._last += count
                keys = [f"{self._prefix}{number}" for number in range(first, first + count)]
                for key in keys:
                    self._journal.append(Aside(key))
                await self._journal.synchronize()
                self._announced = keys
            self._made += 1
            return self._announced.pop(0)

    async def _remove(self, key: str) -> None:
        try:
            await self._deletions.delete(key)
            self._journal.append(Cleared([key]))
        except (StoreError, OSError) as error:
            log.info("hidden object %r stays until the next start: %s", key, error)
        finally:
            self._going.discard(key)
            self._gone.set()
            self._gone = trio.Event()

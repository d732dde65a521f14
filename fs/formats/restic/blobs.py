"""Blobs by id: cached, fetched together, each fetched once however many tasks want it.

Fetches run in the background, so that a reader that is cancelled stops nobody else's. A copy that
is damaged or gone is replaced by another; then the index is read anew, once; only then is it an
error, and of that blob alone. An error of any kind is for who asked: the nursery is shared by all.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import trio
from cachetools import LRUCache

from backgate.fs.formats.restic.allowance import Allowance
from backgate.fs.formats.restic.caches import Caches
from backgate.fs.formats.restic.packs import Blob, Packs, Range, ranges
from backgate.fs.formats.restic.segment import Location
from backgate.gateway.errors import Damaged, NotFound, StoreError
from backgate.gateway.source import Data

RANGES_IN_FLIGHT = 3  # ranges that an allowance should have room for
RANGES_OPENED = 2  # ranges that are decrypted at once
CLOSED = "the repository was closed meanwhile"
T = TypeVar("T")


class Locations(Protocol):
    """Who knows where blobs lie."""

    def find(self, blob: bytes) -> list[Location]:
        """Return every known place of a blob."""

    @property
    def generation(self) -> int:
        """Grows with every change of what is known."""

    async def renew(self, generation: int) -> bool:
        """Read the index anew if that may help; True when it is newer than `generation` then."""

    def why_unknown(self, blob: bytes) -> Damaged:
        """Return the error to raise for a blob that no index file knows."""


@dataclass(slots=True)
class _Due(Generic[T]):
    """A blob on its way. Whoever waits has this object, so the cache may forget the blob."""

    ended: trio.Event = field(default_factory=trio.Event)
    value: T | None = None
    error: Exception | None = None


class Blobs(Generic[T]):
    """One kind of blob of one repository, as `finish` makes it of its plaintext."""

    def __init__(
        self,
        packs: Packs,
        locations: Locations,
        finish: Callable[[Data], T],
        cache: "LRUCache[bytes, T]",
        caches: Caches,
        nursery: trio.Nursery,
    ) -> None:
        self._packs, self._locations, self._finish = packs, locations, finish
        self._cache, self._nursery = cache, nursery
        self._caches = caches
        self._due: dict[bytes, _Due[T]] = {}

    async def get(self, ids: Sequence[bytes]) -> list[T]:
        """Return the blobs `ids`; raises `Damaged` for the first that is, and `StoreError`."""
        found: dict[bytes, T] = {}
        due: dict[bytes, _Due[T]] = {}
        missing: list[bytes] = []
        for blob in dict.fromkeys(ids):
            if (value := self._cache.get(blob)) is not None:
                found[blob] = value
            elif blob in self._due:
                due[blob] = self._due[blob]
            else:
                missing.append(blob)
        due |= self._start_all(missing)
        for blob, one in due.items():
            await one.ended.wait()
            if one.error is not None:
                raise one.error
            assert one.value is not None
            found[blob] = one.value
        if not due:
            await trio.lowlevel.checkpoint()
        return [found[blob] for blob in ids]

    def at_hand(self, blob: bytes) -> T | None:
        """Return the blob if it is cached."""
        return self._cache.get(blob)

    def want(self, ids: Iterable[bytes]) -> None:
        """Begin to fetch blobs that will be asked for; errors show when they are.

        It takes its memory from an allowance of its own, and so never delays what is asked for now.
        """
        missing = [blob for blob in dict.fromkeys(ids) if not self._is_coming(blob)]
        with suppress(Damaged):
            known = self._known(missing)
            self._due |= {blob.id: _Due() for blob in known}
            self._start(known, self._caches.ahead)

    def _is_coming(self, blob: bytes) -> bool:
        return blob in self._cache or blob in self._due

    def _known(self, ids: Iterable[bytes]) -> list[Blob]:
        return [Blob(blob, where[0]) for blob in ids if (where := self._locations.find(blob))]

    def _start_all(self, missing: Sequence[bytes]) -> dict[bytes, _Due[T]]:
        known = self._known(missing)  # may fail, so nothing is claimed before
        due = {blob: _Due[T]() for blob in missing}
        self._due |= due
        self._start(known, self._caches.wanted)
        for blob in set(missing).difference(blob.id for blob in known):
            self._nursery.start_soon(self._rescue, blob)
        return due

    def _start(self, known: Iterable[Blob], allowance: Allowance) -> None:
        """Fetch blobs that were just claimed."""
        plain_max = self._caches.opening.limit // RANGES_OPENED
        for part in ranges(known, allowance.limit // RANGES_IN_FLIGHT, plain_max):
            self._nursery.start_soon(self._fetch, part, allowance)

    async def _fetch(self, part: Range, allowance: Allowance) -> None:
        try:
            async with allowance.held(part.length):
                await self._read(part)
        except trio.Cancelled:
            for blob in part.blobs:
                self._settle(blob.id, StoreError(CLOSED))
            raise

    async def _read(self, part: Range) -> None:
        """Read a range whose blobs are claimed; afterwards each is settled or being rescued."""
        try:
            results: Sequence[T | Damaged] = await self._packs.read(part, self._finish)
        except NotFound:
            results = [self._gone(blob) for blob in part.blobs]
        except Exception as error:  # not ours alone: it must not end the tasks of other files
            for blob in part.blobs:
                self._settle(blob.id, error)
            return
        for blob, result in zip(part.blobs, results, strict=True):
            if isinstance(result, Damaged):
                self._nursery.start_soon(self._rescue, blob.id, result, blob.location)
            else:
                self._settle(blob.id, result)

    async def _rescue(
        self, blob: bytes, error: Damaged | None = None, tried_first: Location | None = None
    ) -> None:
        """Try the other copies of a blob; after that the index once more; then give up."""
        tried = {tried_first}
        try:
            while True:
                generation = self._locations.generation
                for location in self._locations.find(blob):
                    if location in tried:
                        continue
                    tried.add(location)
                    result = await self._copy(Blob(blob, location))
                    if not isinstance(result, Damaged):
                        self._settle(blob, result)
                        return
                    error = error or result
                if not await self._locations.renew(generation):
                    break
            self._settle(blob, error or self._locations.why_unknown(blob))
        except Exception as failure:  # as in `_read`
            self._settle(blob, failure)
        except trio.Cancelled:
            self._settle(blob, StoreError(CLOSED))
            raise

    async def _copy(self, blob: Blob) -> T | Damaged:
        part = Range(blob.location.pack, [blob])
        try:
            async with self._caches.wanted.held(part.length):
                return (await self._packs.read(part, self._finish))[0]
        except NotFound:
            return self._gone(blob)

    def _gone(self, blob: Blob) -> Damaged:
        reason = f"the pack is gone; blob {blob.id.hex()[:16]} was in it"
        return Damaged(self._packs.key(blob.location.pack), blob.location.offset, reason)

    def _settle(self, blob: bytes, result: T | Exception) -> None:
        due = self._due.pop(blob)
        if isinstance(result, Exception):
            due.error = result
        else:
            due.value = result
            with suppress(ValueError):  # larger than the whole cache: only for who waits
                self._cache[blob] = result
        due.ended.set()

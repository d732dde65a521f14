"""What every measure is given: the store, a place to write to, and how much is to be done."""

from dataclasses import dataclass, field
from functools import partial

from backgate.gateway.errors import StoreError
from backgate.gateway.provider import NO_METADATA, Body, ObjectInfo, Provider
from backgate.gateway.validation.area import Area
from backgate.gateway.validation.asking import Asker
from backgate.gateway.validation.plan import Plan
from backgate.gateway.validation.report import Burst, Latency, PageTimes, Throughput

LISTED_PAGES_MAX = 100  # of a listing that is known to be short; more is an endless one
SHORT_PAGES = (100, 10)  # keys; the second where the first do not come
NO_PAGE = "no page came, whatever its size"


@dataclass(slots=True)
class Bench:
    """One validation under way, and the figures it has so far."""

    plan: Plan
    asker: Asker
    area: Area
    latencies: list[Latency] = field(default_factory=list)
    pages: list[PageTimes] = field(default_factory=list)
    throughput: list[Throughput] = field(default_factory=list)
    burst: Burst | None = None
    _sizes: dict[str, list[int]] = field(default_factory=dict)  # delimiter -> pages that come

    @property
    def provider(self) -> Provider:
        return self.asker.provider

    async def put(
        self, key: str, body: Body = b"", metadata: dict[str, str] | None = None
    ) -> ObjectInfo:
        """Store an object whatever it takes; `key` is one of the area's."""
        call = partial(self.provider.put, key, body, metadata or NO_METADATA)
        return await self.asker.surely("put", call)

    async def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        """Read a range whatever it takes."""
        call = partial(self.provider.get, key, start, stop, etag)
        return await self.asker.surely("get", call)

    async def head(self, key: str) -> ObjectInfo:
        """Ask for an object's attributes whatever it takes."""
        return await self.asker.surely("head", partial(self.provider.head, key))

    async def names(self, prefix: str, delimiter: str = "") -> list[str]:
        """Return the keys, and behind them the common prefixes, of a short listing, all pages.

        Raises `StoreError` when pages do not come, and at once when that has been seen before.
        """
        while sizes := self._sizes.setdefault(delimiter, list(SHORT_PAGES)):
            try:
                return await self._names(prefix, delimiter, sizes[0])
            except StoreError:
                del sizes[0]
        raise StoreError(f"{self.provider.name}: page {prefix!r}: {NO_PAGE}")

    async def _names(self, prefix: str, delimiter: str, limit: int) -> list[str]:
        keys: list[str] = []
        prefixes: list[str] = []
        token: str | None = None
        for _ in range(LISTED_PAGES_MAX):
            ask = partial(self.provider.page, prefix, delimiter, token=token, limit=limit)
            page = await self.asker.surely("page", ask)
            keys += [info.key for info in page.objects]
            prefixes += page.prefixes
            token = page.token
            if token is None:
                break
        return keys + prefixes

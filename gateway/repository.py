"""A repository: one store, its metadata cache, its blocks on disk and, for who writes, its spool.

The waist of the house. Above it nobody knows providers, threads or caches; below it nobody knows
backup formats or FUSE.
"""

import logging
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from backgate.gateway.blocks import BlockCache, open_blocks
from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import AnyCredentials
from backgate.gateway.errors import Denied, StoreError, Unreachable
from backgate.gateway.heap import share_one_heap
from backgate.gateway.kinds import compare_kinds
from backgate.gateway.metadata.cache import Metadata, open_metadata
from backgate.gateway.metadata.local import has_index
from backgate.gateway.metadata.place import place_of
from backgate.gateway.places import Places
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.providers import open_provider
from backgate.gateway.readahead import Budget, ReadAhead
from backgate.gateway.reader import ObjectReader
from backgate.gateway.recovery import open_spool
from backgate.gateway.renewal import Renewal
from backgate.gateway.source import Source
from backgate.gateway.spool import Spool
from backgate.gateway.store import ObjectStore
from backgate.gateway.units import MIB

AHEAD = 32 * MIB  # bytes held ahead of who indexes an archive; a mount has a budget of its own
CHECK_PATIENCE = 5.0  # seconds; a store that is away must not keep a mount from coming up
CACHED_PATIENCE = 0.2  # seconds; nor must a slow one, where the cache has the answers
METADATA = "metadata"  # the index's folder in the cache

log = logging.getLogger(__name__)


class Objects:
    """The published objects, for reading only: what backup formats see."""

    def __init__(
        self, store: ObjectStore, metadata: Metadata, blocks: BlockCache, ahead: "Ahead"
    ) -> None:
        self._store, self._metadata, self._blocks, self._ahead = store, metadata, blocks, ahead

    async def info(self, key: str) -> ObjectInfo:
        """Return the object `key`; `NotFound` when there surely is none."""
        return (await self._metadata.look_up(key)).info

    async def renewed(self, key: str) -> ObjectInfo:
        """Return the object `key` as it is now, whoever wrote it; `NotFound`, `StoreError`."""
        return (await self._metadata.renewed(key)).info

    async def below(self, prefix: str, after: str = "") -> Sequence[ObjectInfo]:
        """Return the next objects behind `after`, ascending; whole or `StoreError`."""
        return await self._metadata.below(prefix, after)

    async def confirm(self, prefix: str) -> None:
        """Return once `below` tells what is below `prefix` now; `StoreError`."""
        await self._metadata.confirm(prefix)

    def source(self, info: ObjectInfo) -> Source:
        """Return the object's bytes, cached in blocks on disk."""
        return ObjectReader(self._store, info, self._blocks)

    @contextmanager
    def sequential(self, info: ObjectInfo) -> Iterator[Source]:
        """Provide the object's bytes for one pass from start to end."""
        source = ReadAhead(self.source(info), self._ahead.nursery, self._ahead.budget)
        try:
            yield source
        finally:
            source.close()


@dataclass(frozen=True, slots=True)
class Ahead:
    """Where reading ahead happens, and how many bytes it may hold over all files together."""

    nursery: trio.Nursery
    budget: Budget


@dataclass(frozen=True, slots=True)
class Repository:
    """An open repository; `spool` is None where nothing may be written."""

    config: RepositoryConfig
    places: Places
    store: ObjectStore
    metadata: Metadata
    blocks: BlockCache
    ahead: Ahead
    objects: Objects  # as patient as `backups/` is
    spool: Spool | None

    def source(self, info: ObjectInfo) -> Source:
        """Return the bytes of an object, as patient as `repository/` is."""
        return ObjectReader(self.store, info, self.blocks)


@asynccontextmanager
async def open_repository(
    config: RepositoryConfig,
    places: Places,
    credentials: AnyCredentials | None,
    *,
    writable: bool,
    crawls: bool = True,
) -> AsyncIterator[Repository]:
    """Open a repository and what belongs to it; all is closed when the context ends.

    With `writable` its spool is recovered and claimed for this process. `crawls` keeps the metadata
    cache complete in the background. A store that is away is no error; one that says no is. With
    a cache nobody waits long for its word: a no that comes later is logged.

    Raises `NotFound` for a missing bucket, `Refused` for wrong credentials, `ConfigError`.
    """
    share_one_heap()
    provider, prefix = await trio.to_thread.run_sync(open_provider, config, credentials)
    renewal = Renewal(config, credentials, provider)
    store = ObjectStore(provider, prefix=prefix, patience=config.patience, renewal=renewal)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.aclose)
        place = place_of(config, places.cache / METADATA)
        is_cached = isinstance(place, Path) and has_index(place)
        with trio.move_on_after(CACHED_PATIENCE if is_cached else math.inf) as checking:
            await _check(store.patient(0 if is_cached else CHECK_PATIENCE), is_cached=is_cached)
        blocks = stack.enter_context(open_blocks(places.cache / "blocks", config.block_cache))
        metadata = await stack.enter_async_context(
            open_metadata(
                store,
                place,
                writers=config.writers,
                max_age=config.max_age,
                crawls=crawls,
            )
        )
        spool = None
        if writable:
            compare_kinds(places.cache, config)
            sources = partial(_source, store, blocks)
            spool = await stack.enter_async_context(
                open_spool(places.spool, config, store, metadata, sources)
            )
        ahead = Ahead(await stack.enter_async_context(trio.open_nursery()), Budget(AHEAD))
        stack.callback(ahead.nursery.cancel_scope.cancel)
        if checking.cancelled_caught:
            ahead.nursery.start_soon(_check_late, store)
        patience = config.backups_patience
        yield Repository(
            config=config,
            places=places,
            store=store,
            metadata=metadata,
            blocks=blocks,
            ahead=ahead,
            objects=Objects(store.patient(patience), metadata.patient(patience), blocks, ahead),
            spool=spool,
        )


def _source(store: ObjectStore, blocks: BlockCache, info: ObjectInfo) -> Source:
    return ObjectReader(store, info, blocks)


async def _check(store: ObjectStore, *, is_cached: bool) -> None:
    """Ask the store whether it is there; where nobody may list, an index may do."""
    try:
        await store.check()
    except Denied as error:
        if not is_cached:
            raise
        log.warning("going on with what is known: %s", error)
    except Unreachable as error:
        log.warning("the store does not answer, going on with what is known: %s", error)


async def _check_late(store: ObjectStore) -> None:
    try:
        await _check(store.patient(CHECK_PATIENCE), is_cached=True)
    except StoreError as error:
        log.warning("the store refuses, going on with what is known: %s", error)

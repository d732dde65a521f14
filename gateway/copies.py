"""Copy an object on the store's side, whatever its size; through the gateway where a store cannot.

A copy in one request, else in parts that the store copies, else read here and sent again: the last
is slow and always possible.
"""

import contextlib
import errno
import logging
from collections.abc import Awaitable, Callable, Mapping

from backgate.gateway.attributes import Attributes, metadata_with
from backgate.gateway.errors import BackgateError, FileError, Unsupported
from backgate.gateway.parts import COPY_PART, PartPlan
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.store import ObjectStore
from backgate.gateway.uploads import Uploads

MARK_MAX = 160  # bytes that the gateway itself adds to the metadata of an object: two marks

SendPart = Callable[[ObjectInfo, str, str, int, int, int], Awaitable[str]]
# the object, the copy's key, its upload, the part's number, start and stop -> the part's etag

log = logging.getLogger(__name__)


class Copies:
    """Copies objects within one store."""

    def __init__(self, store: ObjectStore, uploads: Uploads, plan: PartPlan) -> None:
        self._store, self._uploads, self._plan = store, uploads, plan

    async def copy(self, info: ObjectInfo, attributes: Attributes | None, key: str) -> ObjectInfo:
        """Copy the object `info` to `key`; its metadata goes along, `attributes` where given.

        Raises `StoreError`; `Replaced` when the object changed on the way through the gateway.
        """
        if info.size <= self._store.abilities.limits.copy_max:
            with contextlib.suppress(Unsupported):
                return await self._store.copy(info.key, key)
        return await self._with_metadata(info, await self._metadata(info, attributes), key)

    async def renew(self, key: str, attributes: Attributes) -> ObjectInfo:
        """Copy the object `key` onto itself, with `attributes`; what others keep with it stays.

        Raises what `copy` does, and `FileError` (E2BIG) where a store keeps less.
        """
        info = await self._store.head(key)
        metadata = metadata_with(info.metadata or {}, attributes)
        self.expect_room(key, metadata)
        return await self._with_metadata(info, metadata, key)

    def expect_room(self, key: str, metadata: Mapping[str, str]) -> None:
        """Raise `FileError` (E2BIG) for more metadata than the store keeps with an object."""
        size = sum(len(name.encode()) + len(text.encode()) for name, text in metadata.items())
        limit = self._store.abilities.limits.metadata_max - MARK_MAX
        if size > limit:
            what = f"{size} bytes of attributes are more than the {limit} that the store keeps"
            raise FileError(errno.E2BIG, key, what)

    async def _with_metadata(
        self, info: ObjectInfo, metadata: Mapping[str, str], key: str
    ) -> ObjectInfo:
        try:
            return await self._by_the_store(info, metadata, key)
        except Unsupported as error:
            log.debug("%r is read and sent again: %s", info.key, error)
        if info.size > self._plan.single:
            return await self._in_parts(info, metadata, key, self._plan.first, self._sent)
        body = await self._store.get(info.key, 0, info.size, info.etag)
        return await self._store.put(key, body, metadata)

    async def _by_the_store(
        self, info: ObjectInfo, metadata: Mapping[str, str], key: str
    ) -> ObjectInfo:
        abilities = self._store.abilities
        if info.size <= abilities.limits.copy_max:
            return await self._store.copy(info.key, key, metadata)
        if not abilities.copies_parts:
            raise Unsupported(f"{self._store.name}: copies no parts of objects", key=info.key)
        size = min(COPY_PART, abilities.limits.copy_max)
        return await self._in_parts(info, metadata, key, size, self._copied)

    async def _in_parts(
        self, info: ObjectInfo, metadata: Mapping[str, str], key: str, size: int, send: SendPart
    ) -> ObjectInfo:
        """Make `key` of parts of `size` bytes each; larger ones where they would be too many."""
        size = max(size, -(-info.size // self._store.abilities.limits.part_count))
        upload = await self._uploads.begin(key, metadata)
        etags = []
        try:
            for number, start in enumerate(range(0, info.size, size), 1):
                stop = min(start + size, info.size)
                etags.append((number, await send(info, key, upload, number, start, stop)))
            copy = await self._store.commit_upload(key, upload, etags)
        except (BackgateError, OSError):
            self._uploads.give_up(key, upload)
            raise
        self._uploads.ended(upload)
        return copy

    async def _copied(
        self, info: ObjectInfo, key: str, upload: str, number: int, start: int, stop: int
    ) -> str:
        return await self._store.copy_part(key, upload, number, info.key, start, stop, info.etag)

    async def _sent(
        self, info: ObjectInfo, key: str, upload: str, number: int, start: int, stop: int
    ) -> str:
        body = await self._store.get(info.key, start, stop, info.etag)
        return await self._store.put_part(key, upload, number, body)

    async def _metadata(self, info: ObjectInfo, attributes: Attributes | None) -> Mapping[str, str]:
        kept = (await self._store.head(info.key)).metadata or {}
        return kept if attributes is None else metadata_with(kept, attributes)

"""Ask the store for one name, where the index is not sure, and note what it says.

That there is no such object is believed only of a bucket that is there: many stores answer the same
for one that is not.
"""

import logging

import trio

from backgate.gateway.attributes import Attributes, attributes_from_metadata
from backgate.gateway.each import for_each
from backgate.gateway.errors import InvalidKey, NotFound, StoreError
from backgate.gateway.metadata import coverage, names, own, rows, spans
from backgate.gateway.metadata.children import unsettled
from backgate.gateway.metadata.index import Index
from backgate.gateway.metadata.rows import Known, Subdirectory
from backgate.gateway.metadata.settling import Settling
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.store import ObjectStore

log = logging.getLogger(__name__)

AT_ONCE = 16  # questions
FEW = 2  # keys: a marker, and what may lie behind it
BELIEVED = 5.0  # seconds that a bucket is taken to be there after it has answered


class Bucket:
    """Whether the bucket is there, as far as its latest answers tell."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self._answered = -float("inf")  # trio's time

    @property
    def is_there(self) -> bool:
        """True when it has told of something in it a moment ago."""
        return self.trouble is None and trio.current_time() < self._answered + BELIEVED

    def answered(self) -> None:
        """Note that something in it was found."""
        self.trouble, self._answered = None, trio.current_time()


class Asking:
    """Questions about single names to `store`, in its own patience."""

    def __init__(
        self, store: ObjectStore, index: Index, settling: Settling, bucket: Bucket
    ) -> None:
        self._store, self._index = store, index
        self._settling, self._bucket = settling, bucket

    def patient(self, store: ObjectStore, index: Index) -> "Asking":
        """Return the same for `store` and `index`, which are these with another patience."""
        return Asking(store, index, self._settling, self._bucket)

    async def look_up(self, key: str, known: Known | None) -> Known:
        """Return the object `key` as the store has it; `known` when the store does not answer.

        Raises `NotFound` when there is none, `StoreError` when neither is to be had.
        """
        try:
            return await self._head(key, is_last=True)
        except NotFound:
            raise
        except StoreError:
            if known is None:
                raise
            return known

    async def name(
        self, path: str, known: Known | Subdirectory | None, *, is_beside: bool
    ) -> Known | Subdirectory:
        """Return what is at `path`: a file or, if there is none, a directory.

        With `is_beside`, only the file, and only when there is a directory too.
        Raises as `look_up`.
        """
        try:
            if is_beside:
                await self._directory(path)
                return await self._file(path, is_last=True)
            if isinstance(known, Subdirectory):
                return await self._directory(path)
            try:
                return await self._file(path, is_last=False)
            except NotFound:
                return await self._directory(path)
        except NotFound:
            raise
        except StoreError:
            if known is None:
                raise
            return known

    async def is_empty(self, prefix: str) -> bool:
        """True when the store lists nothing below `prefix` but its marker."""
        token: str | None = None
        while True:
            page = await self._store.page(prefix, limit=FEW, token=token)
            if any(info.key != prefix for info in page.objects):
                return False
            if page.token is None or page.token == token:
                return True
            token = page.token

    async def recheck(self, prefix: str) -> None:
        """Ask for the files in the directory `prefix` that were written or removed here of late.

        Over a listing that is believed of them; but others may have changed them since.
        """
        sequence = await self._index.read(coverage.sequence)
        settled = self._settling.settled(sequence)
        raw = spans.encoded(prefix)
        at = raw if settled < sequence else None
        while at is not None:
            keys, at = await self._index.read(unsettled, raw, at, settled)
            await for_each(map(spans.decoded, keys), self._expect_object, AT_ONCE)

    def packed(self, info: ObjectInfo, attributes: Attributes | None) -> bytes | None:
        """Return `attributes`, or else those in the metadata of `info`, for the index."""
        if attributes is None and info.metadata is None:
            return None
        return rows.packed(attributes or attributes_from_metadata(info.metadata, info))

    async def _file(self, path: str, *, is_last: bool) -> Known:
        if not path:
            raise NotFound(f"{self._store.name}: no object has an empty key", key=path)
        found = await self._head(path, is_last=is_last)
        if names.is_marker(spans.encoded(path), found.info.size):
            raise NotFound(f"{self._store.name}: {path!r} is a directory", key=path)
        return found

    async def _head(self, key: str, *, is_last: bool) -> Known:
        """Return what the store says of `key`; `is_last`: no listing comes behind it."""
        raw = spans.encoded(key)
        asked = await self._index.read(coverage.sequence)
        try:
            info = await self._store.head(key)
        except InvalidKey as error:
            raise NotFound(f"{error}", key=key) from error
        except NotFound:
            is_known = await self._index.read(names.object_at, raw) is not None
            if is_known or is_last:
                await self._expect_bucket()
            if is_known:
                await self._index.note(own.lost, raw, asked)
        else:
            self._bucket.answered()
            await self._index.note(own.found, info, self.packed(info, None), asked)
        found = await self._index.read(names.object_at, raw)
        if found is None:
            raise NotFound(f"{self._store.name}: no object {key!r}", key=key)
        return found

    async def _directory(self, path: str) -> Subdirectory:
        """Return the directory `path/` if the store or, meanwhile, the index has it."""
        prefix = path + "/"
        asked = await self._index.read(coverage.sequence)
        settled = self._settling.settled(asked)
        info = await self._first_below(prefix)
        if info is not None and settled < asked:
            await self._expect_object(info.key)
        elif info is not None:
            await self._index.note(own.found, info, None, asked)
        _, directory = await self._index.read(names.named, spans.encoded(path))
        if directory is None:
            raise NotFound(f"{self._store.name}: nothing at {path!r}", key=path)
        return directory

    async def _expect_object(self, key: str) -> None:
        """Note `key` if it is there: a listing may still show what was just deleted."""
        try:
            await self._head(key, is_last=False)
        except NotFound:
            log.debug("%r is listed, and is not there", key)

    async def _first_below(self, prefix: str) -> ObjectInfo | None:
        token: str | None = None
        try:
            while True:
                page = await self._store.page(prefix, limit=1, token=token)
                self._bucket.answered()
                if page.objects or page.token is None or page.token == token:
                    return page.objects[0] if page.objects else None
                token = page.token
        except NotFound as error:
            self._bucket.trouble = str(error)
            raise StoreError(f"{self._store.name}: cannot be listed: {error}") from error

    async def _expect_bucket(self) -> None:
        """Raise `StoreError` when it is the bucket that is not there, and not one object."""
        if self._bucket.is_there:
            return
        try:
            await self._store.check()
        except NotFound as error:
            self._bucket.trouble = str(error)
            raise StoreError(str(error)) from error
        self._bucket.answered()

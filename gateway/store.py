"""The async face of a provider, and the only way to it: threads, deadlines, retry, counters.

Head, page and delete have a limiter of their own, so that `ls` never queues behind GETs, and so
have small puts: who writes many files at once waits for one another's round trips no longer than
need be. What the store copies by itself holds up no bytes on their way to it. What a lost answer
leaves open is settled here: a conditional write that finds its own earlier attempt counts as done,
and so does the commit of an upload that was committed already.
"""

import copy
import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TypeVar

import trio
from msgspec.structs import replace

from backgate.gateway import threads
from backgate.gateway.counters import Counters
from backgate.gateway.delete_batch import DeleteBatch, Look
from backgate.gateway.errors import (
    AlreadyThere,
    NotFound,
    Refused,
    StoreError,
    Unreachable,
    WrongClock,
    WrongCredentials,
)
from backgate.gateway.pacing import Pacing
from backgate.gateway.provider import (
    NO_METADATA,
    Abilities,
    Body,
    ObjectInfo,
    Page,
    PendingUpload,
    Provider,
)
from backgate.gateway.renewal import Renewal
from backgate.gateway.retry import retried
from backgate.gateway.units import KIB

LIMIT = 180.0  # seconds; a provider's own socket time-outs end a small request long before
LONG_LIMIT = 1800.0  # seconds; the store moves up to 5 GiB by itself in a copy or a commit
SMALL = 256 * KIB  # bytes of a body that takes less time to send than its answer to come
SLOWEST = 8 * KIB  # bytes per second; a transfer below this is a fault
WRITER = "backgate-writer"  # metadata name; says which call stored an object

T = TypeVar("T")
NO_ETAGS: Mapping[str, str] = MappingProxyType({})


class ObjectStore:
    """A bucket below a prefix; its methods are those of `Provider`, awaited, keys relative to it.

    A fault is waited out for `patience` seconds, then raised as `Unreachable`. A call that is
    cancelled may still take effect in the store, once.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        prefix: str = "",
        patience: float = 3600.0,
        limit: float = LIMIT,
        renewal: Renewal | None = None,
    ) -> None:
        self.name = f"{provider.name}/{prefix}".rstrip("/")
        self.abilities: Abilities = provider.abilities
        self.counters = Counters(self.name)
        self._provider, self._prefix = provider, prefix
        self._patience, self._limit = patience, limit
        self._renewal = renewal
        self._pacing = Pacing(provider.abilities.rates)
        self._metadata_calls = trio.CapacityLimiter(threads.METADATA_THREADS)
        self._get_calls = trio.CapacityLimiter(threads.GET_THREADS)
        self._put_calls = trio.CapacityLimiter(threads.PUT_THREADS)
        self._copy_calls = trio.CapacityLimiter(threads.COPY_THREADS)
        self._small_put_calls = trio.CapacityLimiter(threads.SMALL_PUT_THREADS)
        self._writers: dict[str, str] = {}  # pending upload -> what its object will be marked with

    @property
    def patience(self) -> float:
        """Seconds that a fault is waited out."""
        return self._patience

    def patient(self, patience: float) -> "ObjectStore":
        """Return this store with another patience: same provider, limiters and counters."""
        other = copy.copy(self)
        other._patience = patience
        return other

    async def aclose(self) -> None:
        """Close the provider; nothing is asked of it afterwards."""
        await trio.to_thread.run_sync(self._provider.close)

    async def check(self) -> None:
        await self._ask("check", self._provider.check)

    async def head(self, key: str) -> ObjectInfo:
        call = partial(self._provider.head, self._prefix + key)
        return self._seen(await self._ask("head", call))

    async def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        size = max(0, stop - start)
        call = partial(self._got, self._prefix + key, start, stop, etag)
        data = await self._ask("get", call, self._get_calls, self._time_for(size))
        self.counters.bytes_in += len(data)
        return data

    async def put(
        self,
        key: str,
        body: Body,
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        writer = uuid.uuid4().hex if if_absent else None
        marked = metadata if writer is None else {**metadata, WRITER: writer}
        call = self._provider.putting(self._prefix + key, body, marked, if_absent=if_absent)
        try:
            limiter = self._small_put_calls if len(body) <= SMALL else self._put_calls
            info = await self._ask("put", call, limiter, self._time_for(len(body)))
        except AlreadyThere:
            found = await self._own(key, writer)
            if found is None:
                raise
            info = found
        self.counters.bytes_out += len(body)
        return self._seen(info)

    async def copy(
        self, source: str, target: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        prefix = self._prefix
        call = partial(self._provider.copy, prefix + source, prefix + target, metadata)
        return self._seen(await self._ask("copy", call, self._copy_calls, LONG_LIMIT))

    async def delete(
        self, keys: Sequence[str], look: Look | None = None, etags: Mapping[str, str] = NO_ETAGS
    ) -> Mapping[str, Exception]:
        """Delete any number of keys, in batches; returns those that could not be, and why.

        Those of `etags` are deleted only if they are that version, where the store can tell:
        `Replaced` if not. Before a key is asked for once more `look` says what is there of it, if
        that is still to be deleted: who asked before may have had no answer. Raises only while
        nothing was deleted: a caller has to know what is gone.
        """
        failed: dict[str, Exception] = {}
        size = self.abilities.limits.delete_max
        full = [self._prefix + key for key in keys]
        versions = {self._prefix + key: etag for key, etag in etags.items() if etag}
        for first in range(0, len(full), size):
            try:
                batch = full[first : first + size]
                known = {key: versions[key] for key in batch if key in versions}
                failed |= await self._delete_batch(batch, look, known)
            except StoreError as error:
                if first == 0:
                    raise
                failed |= dict.fromkeys(full[first:], error)
                break
        return {key.removeprefix(self._prefix): error for key, error in failed.items()}

    async def page(
        self,
        prefix: str = "",
        delimiter: str = "",
        *,
        after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> Page:
        call = partial(
            self._provider.page,
            self._prefix + prefix,
            delimiter,
            after=self._prefix + after if after else "",
            token=token,
            limit=min(limit, self.abilities.limits.page_max),
        )
        page = await self._ask("page", call)
        if not self._prefix:
            return page
        objects = [replace(info, key=self._relative(info.key)) for info in page.objects]
        return Page(objects, [self._relative(one) for one in page.prefixes], page.token)

    async def begin_upload(self, key: str, metadata: Mapping[str, str] = NO_METADATA) -> str:
        writer = uuid.uuid4().hex
        marked = {**metadata, WRITER: writer}
        call = partial(self._provider.begin_upload, self._prefix + key, marked)
        upload = await self._ask("begin_upload", call)
        self._writers[upload] = writer
        return upload

    async def put_part(self, key: str, upload: str, number: int, body: Body) -> str:
        call = self._provider.putting_part(self._prefix + key, upload, number, body)
        etag = await self._ask("put_part", call, self._put_calls, self._time_for(len(body)))
        self.counters.bytes_out += len(body)
        return etag

    async def copy_part(
        self,
        key: str,
        upload: str,
        number: int,
        source: str,
        start: int,
        stop: int,
        etag: str | None = None,
    ) -> str:
        target, source = self._prefix + key, self._prefix + source
        call = partial(self._provider.copy_part, target, upload, number, source, start, stop, etag)
        return await self._ask("copy_part", call, self._copy_calls, LONG_LIMIT)

    async def commit_upload(
        self, key: str, upload: str, parts: Sequence[tuple[int, str]], *, if_absent: bool = False
    ) -> ObjectInfo:
        target = self._prefix + key
        call = partial(self._provider.commit_upload, target, upload, parts, if_absent=if_absent)
        try:
            info = await self._ask("commit_upload", call, self._put_calls, LONG_LIMIT)
        except (NotFound, AlreadyThere):
            etag = _etag_of_parts(parts) if self.abilities.etags_are_md5 else None
            found = await self._own(key, self._writers.get(upload), etag)
            if found is None:
                raise
            info = found
        self._writers.pop(upload, None)
        return self._seen(info)

    async def abort_upload(self, key: str, upload: str) -> None:
        call = partial(self._provider.abort_upload, self._prefix + key, upload)
        await self._ask("abort_upload", call)
        self._writers.pop(upload, None)

    async def uploads(self, prefix: str = "") -> Sequence[PendingUpload]:
        found = await self._ask("uploads", partial(self._provider.uploads, self._prefix + prefix))
        return [replace(one, key=self._relative(one.key)) for one in found]

    def _got(self, key: str, start: int, stop: int, etag: str | None) -> bytes:
        try:
            return self._provider.get(key, start, stop, etag)
        except NotFound as error:
            if error.key is not None:  # many stores say the same when it is the bucket that is gone
                with suppress(Refused):
                    self._provider.check()
            raise

    async def _ask(
        self,
        verb: str,
        function: Callable[[], T],
        limiter: trio.CapacityLimiter | None = None,
        limit: float | None = None,
    ) -> T:
        attempt = partial(self._attempt, verb, function, limiter or self._metadata_calls, limit)
        return await retried(attempt, patience=self._patience, counters=self.counters)

    async def _attempt(
        self,
        verb: str,
        function: Callable[[], T],
        limiter: trio.CapacityLimiter,
        limit: float | None,
    ) -> T:
        await self._pacing.turn(verb)
        self.counters.requests[verb] += 1
        try:
            if self._provider.is_instant:
                await trio.lowlevel.checkpoint()
                return function()
            wait = max(self._patience, self._limit)
            answer = await threads.call(function, limiter, limit or self._limit, wait)
            if self._renewal is not None:
                self._renewal.is_admitted, self.counters.expired = True, ""
            return answer
        except TimeoutError as error:
            raise Unreachable(f"{self.name}: {verb}: {error}") from error
        except WrongCredentials as error:
            if self._renewal is None or not self._renewal.is_admitted:
                raise
            await self._renewal.look()
            self.counters.expired = self._renewal.source
            where = f"waiting for new ones in {self._renewal.source}"
            raise Unreachable(f"credentials expired, {where}: {error}") from error
        except WrongClock as error:
            if self._renewal is None or not self._renewal.is_admitted:
                raise
            raise Unreachable(str(error)) from error  # it was right before, and may be set again
        except StoreError as error:
            if isinstance(error, Unreachable) and error.retry_after:
                self._pacing.hold(verb, error.retry_after)
            if error.key is not None:
                error.key = error.key.removeprefix(self._prefix)
            elif isinstance(error, NotFound) and verb != "check":
                raise Unreachable(str(error)) from error  # the bucket is gone, and may come back
            raise

    async def _delete_batch(
        self, keys: list[str], look: Look | None, etags: Mapping[str, str]
    ) -> dict[str, Exception]:
        async def looked(key: str) -> str | None:
            return "" if look is None else await look(key.removeprefix(self._prefix))

        async def ask(call: Callable[[], T]) -> T:
            return await self._attempt("delete", call, self._metadata_calls, LONG_LIMIT)

        batch = DeleteBatch(self._provider, keys, etags, look and looked, ask)
        try:
            await retried(batch.attempt, patience=self._patience, counters=self.counters)
        except StoreError as error:
            batch.give_up(error)
        return batch.failed

    async def _own(
        self, key: str, writer: str | None, etag: str | None = None
    ) -> ObjectInfo | None:
        """Return the object under `key` if an attempt of ours put it there; its answer was lost."""
        try:
            call = partial(self._provider.head, self._prefix + key)
            info = await self._ask("head", call)
        except NotFound:
            return None
        is_ours = writer is not None and (info.metadata or {}).get(WRITER) == writer
        return info if is_ours or (etag is not None and info.etag == etag) else None

    def _seen(self, info: ObjectInfo) -> ObjectInfo:
        """The object as callers know it: relative key, and without the writer's mark."""
        metadata = info.metadata
        if metadata is not None and WRITER in metadata:
            metadata = {name: text for name, text in metadata.items() if name != WRITER}
        return replace(info, key=self._relative(info.key), metadata=metadata)

    def _relative(self, key: str) -> str:
        if not key.startswith(self._prefix):
            raise StoreError(f"{self.name}: answered with {key!r}, which is not below the prefix")
        return key[len(self._prefix) :]

    def _time_for(self, size: int) -> float:
        return self._limit + size / SLOWEST


def _etag_of_parts(parts: Sequence[tuple[int, str]]) -> str | None:
    """Return the etag that S3 gives an object of these parts; None where part etags are no MD5s."""
    try:
        digests = b"".join(bytes.fromhex(etag.partition(" ")[0]) for _, etag in parts)
    except ValueError:
        return None
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"

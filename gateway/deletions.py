"""Deletes, batched across concurrent callers: one request for all that came while the one before
ran.

A delete whose answer was lost is asked for again. Where others write too, one of them may have
taken the name meanwhile, and what it made must stay: a lock that is deleted locks nobody out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import trio

from backgate.gateway.errors import NotFound, Replaced, StoreError
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.store import ObjectStore
from backgate.gateway.units import SECOND_NS

REQUESTS_MAX = 4  # at a time; more callers share larger requests
SAME_WITHIN = 5 * SECOND_NS  # that what a put and a head tell of the time of one object may differ


@dataclass(slots=True)
class _Deletion:
    info: ObjectInfo | None  # of what is to be deleted, where another may come in its place
    ended: trio.Event = field(default_factory=trio.Event)
    error: Exception | None = None


class Deletions:
    """What is to be deleted from one store."""

    def __init__(self, store: ObjectStore, nursery: trio.Nursery) -> None:
        self._store, self._nursery = store, nursery
        self._queue: dict[str, _Deletion] = {}
        self._running = 0

    async def delete(self, key: str, info: ObjectInfo | None = None) -> None:
        """Return once no object `key` is in the store; raises what the store said of that key.

        With `info`, one that others put there after a first attempt may be. A caller that is
        cancelled leaves the deletion going.
        """
        deletion = self._queue.get(key)
        if deletion is None:
            deletion = self._queue[key] = _Deletion(info)
        if self._running < REQUESTS_MAX:
            self._running += 1
            self._nursery.start_soon(self._work)
        await deletion.ended.wait()
        if deletion.error is not None:
            raise deletion.error

    async def _work(self) -> None:
        try:
            while self._queue:
                size = self._store.abilities.limits.delete_max
                batch = {key: self._queue.pop(key) for key in list(self._queue)[:size]}
                await self._delete(batch)
        finally:
            self._running -= 1

    async def _delete(self, batch: dict[str, _Deletion]) -> None:
        infos = {key: one.info for key, one in batch.items() if one.info is not None}
        try:
            failed = await self._store.delete(list(batch), partial(still, self._store, infos))
        except StoreError as error:
            failed = dict.fromkeys(batch, error)
        for key, deletion in batch.items():
            reason = failed.get(key)
            deletion.error = None if isinstance(reason, Replaced) else reason
            deletion.ended.set()


async def still(store: ObjectStore, infos: Mapping[str, ObjectInfo], key: str) -> str | None:
    """Return the etag of `key`, to be deleted; None when it is surely gone, or another object than
    that of `infos`. Where it cannot be told from others, any is to be: "".
    """
    info = infos.get(key)
    if info is None:
        return ""
    try:
        found = await store.patient(0).head(key)  # who asks waits a fault out
    except NotFound:
        return None
    if key.endswith("/") and not store.abilities.markers_are_objects:
        return ""  # its time is that of what is in it
    is_same = (found.mtime_ns, found.size) == (info.mtime_ns, info.size)
    if found.etag == info.etag:
        is_same = found.mtime_ns <= info.mtime_ns + SAME_WITHIN
    return found.etag if is_same else None

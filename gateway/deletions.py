"""Deletes, batched across concurrent callers: one request for all that came while the one before
ran.
"""

from dataclasses import dataclass, field

import trio

from backgate.gateway.errors import StoreError
from backgate.gateway.store import ObjectStore

REQUESTS_MAX = 4  # at a time; more callers share larger requests


@dataclass(slots=True)
class _Deletion:
    ended: trio.Event = field(default_factory=trio.Event)
    error: Exception | None = None


class Deletions:
    """What is to be deleted from one store."""

    def __init__(self, store: ObjectStore, nursery: trio.Nursery) -> None:
        self._store, self._nursery = store, nursery
        self._queue: dict[str, _Deletion] = {}
        self._running = 0

    async def delete(self, key: str) -> None:
        """Return once no object `key` is in the store; raises what the store said of that key.

        A caller that is cancelled leaves the deletion going.
        """
        deletion = self._queue.get(key)
        if deletion is None:
            deletion = self._queue[key] = _Deletion()
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
        try:
            failed = await self._store.delete(list(batch))
        except StoreError as error:
            failed = dict.fromkeys(batch, error)
        for key, deletion in batch.items():
            deletion.error = failed.get(key)
            deletion.ended.set()

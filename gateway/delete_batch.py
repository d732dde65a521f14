"""One batch of keys that are deleted, in as many attempts as it takes.

A delete whose answer was lost is asked for again only while what is to be deleted is still there.
Where a version is meant and the store looks at conditions, the two are one step.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import trio

from backgate.gateway.errors import StoreError, Unreachable, Unsupported
from backgate.gateway.provider import Provider

# What is there of the object to be deleted: its etag, "" for any, None for nothing or another one.
Look: TypeAlias = Callable[[str], Awaitable[str | None]]
Attempt: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any]]  # makes a request, once


class DeleteBatch:
    """What is left of one batch, and what could not be deleted, with the reason."""

    def __init__(
        self,
        provider: Provider,
        keys: list[str],
        etags: Mapping[str, str],
        look: Look | None,
        ask: Attempt,
    ) -> None:
        self._provider, self._look, self._ask = provider, look, ask
        self._keys = self._left = keys
        self._etags = dict(etags) if provider.abilities.conditional_delete else {}
        self._is_again = False
        self.failed: dict[str, Exception] = {}

    async def attempt(self) -> None:
        """Ask for what is left; raises `Unreachable` when that is to be done again."""
        if self._is_again and self._look is not None:
            found = {key: await self._look(key) for key in self._left}
            if self._provider.abilities.conditional_delete:
                self._etags.update((key, etag) for key, etag in found.items() if etag)
            self._left = [key for key in self._left if found[key] is not None]
        self._is_again = True
        self.failed.update(await self._asked())
        self._left = [key for key, one in self.failed.items() if isinstance(one, Unreachable)]
        faults = [self.failed.pop(key) for key in self._left]
        if faults:
            raise faults[0]

    def give_up(self, error: StoreError) -> None:
        """Note what is left; raises `error` when there was not one answer."""
        if self._left is self._keys:
            raise error  # the store, not a key, is at fault
        self.failed |= dict.fromkeys(self._left, error)

    async def _asked(self) -> Mapping[str, Exception]:
        """Ask once, for those with an etag one by one; an error of one is told with its key."""
        failed: dict[str, Exception] = {}
        others = [key for key in self._left if key not in self._etags]
        versions = set(self._left).difference(others)

        async def delete_version(key: str) -> None:
            try:
                await self._ask(partial(self._provider.delete_version, key, self._etags[key]))
            except Unsupported:  # the profile says more than is true
                others.append(key)
            except StoreError as error:
                failed[key] = error

        if versions:  # an empty nursery would cost a turn of trio's loop at each unlink
            async with trio.open_nursery() as nursery:
                for key in versions:
                    nursery.start_soon(delete_version, key)
        if others:
            failed |= await self._all(others, is_alone=versions <= set(others))
        return failed

    async def _all(self, keys: Sequence[str], *, is_alone: bool) -> Mapping[str, Exception]:
        try:
            found: Mapping[str, Exception] = await self._ask(partial(self._provider.delete, keys))
            return found
        except StoreError as error:
            if is_alone:
                raise
            return dict.fromkeys(keys, error)

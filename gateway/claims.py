"""Claims on names, so that changes of one name happen one after another.

A name that ends in "/" stands for all below it. Whoever changes what a name means holds a claim on
it from the first look to the last acknowledgement; no state changes across an await without one.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Claims:
    """Who is changing what."""

    def __init__(self) -> None:
        self._held: list[str] = []  # as many as requests are in flight: dozens
        self._released = trio.Event()

    @asynccontextmanager
    async def claim(self, *keys: str) -> AsyncIterator[None]:
        """Hold `keys`, all at once, while the context is open; waits for who else holds any."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while any(_overlap(key, held) for key in keys for held in self._held):
            await self._released.wait()
        self._held += keys
        try:
            yield
        finally:
            for key in keys:
                self._held.remove(key)
            self._released.set()
            self._released = trio.Event()

    def is_claimed(self, key: str) -> bool:
        """True while somebody holds `key`."""
        return any(_overlap(key, held) for held in self._held)


def _overlap(one: str, other: str) -> bool:
    if one.endswith("/") and other.startswith(one):
        return True
    return one == other or (other.endswith("/") and one.startswith(other))

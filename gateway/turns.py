"""One gateway after the other makes a directory of one name, where its marker cannot decide.

Where a store keeps objects in directories of its own, a marker is no object: SeaweedFS 4.48 lets
two of four writers have `name/` at the same time, each on the condition that there is none. So who
wants it first puts a hidden object, on that condition, which the store does decide, and deletes it
when the directory is there.
"""

import errno
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from backgate.gateway.errors import FileError
from backgate.gateway.moves import Moves, purpose_of
from backgate.gateway.records import HIDDEN, Move
from backgate.gateway.store import ObjectStore
from backgate.gateway.taking import Taking

TURNS = f"{HIDDEN}turns/"
WAITS = 30.0  # seconds for another gateway's turn to end
AGAIN = 0.1  # seconds until it is asked for again

log = logging.getLogger(__name__)


class Turns:
    """The turns of one gateway."""

    def __init__(self, store: ObjectStore, taking: Taking, moves: Moves) -> None:
        self._taking, self._moves = taking, moves
        self._are_needed = taking.asks_store and not store.abilities.markers_are_objects

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[bool]:
        """Hold the turn for `key`, which no other gateway makes while the context is open.

        It says whether the store has to be asked to decide, by a condition. Not so where a turn was
        needed: then there is none, and the answer to a put may be lost without harm.

        Raises `StoreError`, and `FileError`: EEXIST when there is one, EBUSY when another gateway
        does not end its turn.
        """
        if not (self._are_needed and key.endswith("/")):
            yield self._taking.asks_store
            return
        move = await self._moves.announced("", name_of_turn(key), is_taken=False)
        try:
            await self._wait_for(move, key)
            if await self._taking.learn(key):
                raise FileError(errno.EEXIST, key)
            yield False
        finally:
            self._moves.give_up_behind(move)

    async def _wait_for(self, move: Move, key: str) -> None:
        until = trio.current_time() + WAITS
        while not await self._taking.wins(move.target, purpose_of(move)):
            if trio.current_time() > until:
                reason = (
                    f"another gateway has been making it for {WAITS:.0f} s; if that one will never"
                    f" run again, delete the object {move.target!r}"
                )
                log.error("%r: %s", key, reason)
                raise FileError(errno.EBUSY, key, reason)
            await trio.sleep(AGAIN)


def name_of_turn(key: str) -> str:
    """Return the hidden object that decides about the directory `key`."""
    return TURNS + hashlib.sha256(key.encode()).hexdigest()

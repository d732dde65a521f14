"""One gateway after the other makes a directory of one name, where its marker cannot decide.

Where a store keeps objects in directories of its own, a marker is no object: SeaweedFS 4.48 lets
two of four writers have `name/` at the same time, each on the condition that there is none. So who
wants it first puts a hidden object, on that condition, which the store does decide, and deletes it
when the directory is there.

No store can tell whether who has a turn will ever run again: a gateway that has lost its power, and
one that waits for a store to answer, look the same. So the object says whose it is, for a person
to decide.
"""

import errno
import hashlib
import logging
import shlex
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio

from backgate.gateway.deletions import still
from backgate.gateway.errors import FileError, NotFound, Replaced
from backgate.gateway.moves import Moves, purpose_of
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.records import HIDDEN, Move
from backgate.gateway.store import ObjectStore
from backgate.gateway.taking import MARK, Taking
from backgate.gateway.units import KIB

TURNS = f"{HIDDEN}turns/"
TURNS_MAX = 1000  # that are looked at; each lasts for some requests
SAID_MAX = 8 * KIB  # bytes of what one says; a key has 1,024, and JSON writes up to six for each
WAITS = 30.0  # seconds for another gateway's turn to end
AGAIN = 0.1  # seconds until it is asked for again

log = logging.getLogger(__name__)


class Said(msgspec.Struct, frozen=True):
    """What the hidden object says of a turn."""

    directory: str = ""  # the key that is being made
    host: str = ""  # where the gateway runs
    purpose: str = ""  # tells turns apart where an etag is of the content


class Turn(msgspec.Struct, frozen=True):
    """A turn that some gateway has, or has left."""

    info: ObjectInfo
    said: Said
    gateway: str  # which of all that write to the store; "" if it does not say


class Turns:
    """The turns of one gateway, which calls the repository `name`."""

    def __init__(self, store: ObjectStore, taking: Taking, moves: Moves, name: str) -> None:
        self._store, self._taking, self._moves, self._name = store, taking, moves, name
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
        purpose = purpose_of(move)
        said = Said(key, socket.gethostname(), self._taking.mark(purpose))
        while not await self._taking.wins(move.target, purpose, msgspec.json.encode(said)):
            if trio.current_time() > until:
                reason = await self._reason(move.target, key)
                log.error("%r: %s", key, reason)
                raise FileError(errno.EBUSY, key, reason)
            await trio.sleep(AGAIN)

    async def _reason(self, target: str, key: str) -> str:
        turn = await turn_at(self._store, target)
        where = f" on {turn.said.host!r}" if turn is not None and turn.said.host else ""
        directory = shlex.quote(f"repository/{key[:-1]}")
        return (
            f"another gateway{where} has been making it for {WAITS:.0f} s; if that one will never"
            f" run again: backgate turns end {self._name} {directory}"
        )


async def turns_in(store: ObjectStore) -> list[Turn]:
    """Return the turns that gateways have, or have left; raises `StoreError`."""
    found: list[Turn] = []
    token: str | None = None
    while len(found) < TURNS_MAX:
        page = await store.page(TURNS, token=token)
        for info in page.objects[:TURNS_MAX]:
            turn = await turn_at(store, info.key)
            if turn is not None:
                found.append(turn)
        token = page.token
        if token is None:
            break
    return found


async def turn_at(store: ObjectStore, key: str) -> Turn | None:
    """Return the turn whose hidden object is `key`; None when it has ended."""
    try:
        info = await store.head(key)
        body = await store.get(key, 0, min(info.size, SAID_MAX), info.etag)
    except (NotFound, Replaced):
        return None
    try:
        said = msgspec.json.decode(body, type=Said) if body else Said()
    except msgspec.DecodeError:
        said = Said()
    gateway, _, _ = (info.metadata or {}).get(MARK, "").partition("/")
    return Turn(info, said, gateway)


async def end(store: ObjectStore, turn: Turn) -> None:
    """End a turn of a gateway that will never run again, and none that began since.

    Raises `StoreError`.
    """
    key = turn.info.key
    look = partial(still, store, {key: turn.info})
    if await look(key) is None:
        return
    for error in (await store.delete([key], look, {key: turn.info.etag})).values():
        if not isinstance(error, Replaced):
            raise error


def name_of_turn(key: str) -> str:
    """Return the hidden object that decides about the directory `key`."""
    return TURNS + hashlib.sha256(key.encode()).hexdigest()

"""Take a new name for one gateway alone, among all that write to one store.

Where only this gateway writes, its index knows what is there and nobody is asked. Where others
write too, the store decides: an empty object is put under the name, on the condition that there is
none, before the tool hears that the name is its own. Where a store ignores conditions a lock would
lock nobody out, so what tools take for one is refused, unless the administrator has said that no
tool of another gateway asks for it (`locks = "gateway"`).
"""

import errno
import logging
import re
from collections.abc import Mapping
from functools import partial

import trio

from backgate.gateway.attributes import Attributes, metadata_from_attributes
from backgate.gateway.claims import Claims
from backgate.gateway.config import RepositoryConfig
from backgate.gateway.errors import (
    AlreadyThere,
    FileError,
    NotFound,
    Replaced,
    StoreError,
    Unsupported,
)
from backgate.gateway.keys import parent_of
from backgate.gateway.metadata.cache import Metadata
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.records import HIDDEN
from backgate.gateway.staged import is_random
from backgate.gateway.store import ObjectStore

MARK = "backgate-taken"  # metadata name; says who took the name, and for what
RETRY_AFTER = 30.0  # seconds until what could not be given back is tried again
# In the name of a directory that is made as a lock; `locks` is where restic keeps them.
_LOCK = re.compile("lock(?!s/)", re.IGNORECASE)

log = logging.getLogger(__name__)


def purpose_of(number: int, since_ns: int) -> str:
    """Return for which file of the spool a name is taken; numbers begin again at each start."""
    return f"{number}-{since_ns}"


class Taking:
    """Decides who has a new name; `gateway` names this spool among all of the store."""

    def __init__(
        self,
        config: RepositoryConfig,
        store: ObjectStore,
        metadata: Metadata,
        claims: Claims,
        gateway: str,
    ) -> None:
        self._store, self._metadata, self._claims = store, metadata, claims
        self._gateway = gateway
        self.is_shared = config.writers == "shared" or config.metadata is not None
        is_asked = self.is_shared and config.locks == "store"
        self.asks_store = is_asked and store.abilities.conditional_put
        self._refuses = is_asked and not store.abilities.conditional_put

    def warn(self) -> None:
        """Tell the administrator now what will be refused."""
        if self._refuses:
            log.warning("%s: %s", self._store.name, self._reason("locks are refused"))

    def concerns(self, key: str) -> bool:
        """True when another gateway may want the new file `key`; not so for a random name."""
        return (self.asks_store or self._refuses) and not is_random(key)

    def expect_decided(self, what: str, key: str) -> None:
        """Raise `Unsupported` when nobody can decide who does `what` with `key` first."""
        if self._refuses:
            raise Unsupported(f"{key!r}: {self._reason(f'{what} is refused')}", key=key)

    def expect_no_lock(self, prefix: str) -> None:
        """Raise `Unsupported` for a directory that is made as a lock, where it would be none."""
        if _LOCK.search(prefix.removeprefix(parent_of(prefix[:-1]))):
            self.expect_decided("mkdir of a lock", prefix)

    async def take(
        self,
        key: str,
        attributes: Attributes | None,
        purpose: object,
        *,
        if_absent: bool = True,
    ) -> ObjectInfo:
        """Put an empty object under `key`, which nobody has, for `purpose`.

        Raises `FileError` (EEXIST) when somebody has it; the index then knows what it is. Without
        `if_absent` that has been settled before (`turns.py`).
        """
        metadata = {} if attributes is None else metadata_from_attributes(attributes)
        marked = self.marked(metadata, purpose)
        try:
            info = await self._store.put(key, b"", marked, if_absent=if_absent)
        except AlreadyThere:
            await self.learn(key)
            raise FileError(errno.EEXIST, key) from None
        await self._metadata.stored(info, attributes)
        return info

    async def wins(self, key: str, purpose: object, body: bytes) -> bool:
        """Put `body` under the hidden `key`, for `purpose`; False when there is something."""
        try:
            await self._store.put(key, body, self.marked({}, purpose), if_absent=True)
        except AlreadyThere:
            return False
        return True

    def marked(self, metadata: Mapping[str, str], purpose: object) -> dict[str, str]:
        """Return `metadata` that says who took the name, and for what."""
        return {**metadata, MARK: self.mark(purpose)}

    def mark(self, purpose: object) -> str:
        """Return what says of a name that this gateway took it, and for what."""
        return f"{self._gateway}/{purpose}"

    def is_taken(self, info: ObjectInfo, purpose: object) -> bool:
        """True when `info` is what this gateway took for `purpose`, and no more than that."""
        is_only_a_name = not info.size or info.key.startswith(HIDDEN)
        return is_only_a_name and (info.metadata or {}).get(MARK) == self.mark(purpose)

    async def learn(self, key: str) -> bool:
        """Have the index know what another gateway has under `key`; False for nothing."""
        try:
            await self._metadata.current(key)
        except NotFound:
            log.debug("%r is gone again", key)
            return False
        return True

    async def surely_give_back(self, key: str, purpose: object) -> None:
        """Delete what was taken for `purpose`, unless it is something else by now.

        Returns once that is done, however long the store is away. Between looking and deleting
        `key` is claimed: nobody here makes a file of it.
        """
        while True:
            try:
                async with self._claims.claim(key):
                    await self._give_back(key, purpose)
            except StoreError as error:
                log.info("%r stays taken for now: %s", key, error)
                await trio.sleep(RETRY_AFTER)
            else:
                return

    async def _give_back(self, key: str, purpose: object) -> None:
        etag = await self._ours(purpose, key)
        if etag is None:
            await self.learn(key)
            return
        await self._forget(key)  # first: once it is deleted, somebody may make it anew
        failed = await self._store.delete([key], partial(self._ours, purpose), {key: etag})
        for error in failed.values():
            if not isinstance(error, Replaced):
                raise error
            await self.learn(key)

    async def _ours(self, purpose: object, key: str) -> str | None:
        """Return the etag of what was taken for `purpose`; None if it is that no more."""
        try:
            info = await self._store.head(key)
        except NotFound:
            return None
        return info.etag if self.is_taken(info, purpose) else None

    async def _forget(self, key: str) -> None:
        if key.endswith("/") and await self._metadata.is_empty_in_store(key):
            await self._metadata.directory_removed(key)
        else:
            await self._metadata.removed([key])

    def _reason(self, what: str) -> str:
        why = self._store.abilities.why_unconditional
        return (
            f"{what}: other gateways write here too and {why}, so it would lock nobody out; "
            'write locks = "gateway" if no tool on another gateway needs to know'
        )

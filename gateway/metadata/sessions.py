"""Ask a database from trio: in threads, waiting while it is away, with its tables made first."""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import trio

from backgate.gateway import threads
from backgate.gateway.counters import Counters
from backgate.gateway.errors import StoreError, Unreachable
from backgate.gateway.metadata import shared_schema
from backgate.gateway.metadata.database import Corrupt
from backgate.gateway.metadata.postgresql import Connection, Connections, Server, TablesMissing
from backgate.gateway.retry import retried

READERS = 8  # connections for questions
WRITERS = 2  # connections for changes, which wait for each other in the database anyway
LIMIT = 300.0  # seconds; a question that takes longer has been lost

T = TypeVar("T")


class Sessions:
    """Conversations with `server`, about the index of the repository `store`."""

    def __init__(self, server: Server, store: str) -> None:
        self.server = server
        self.openings = 0  # how often the tables were looked for, or made
        self.trouble: str | None = None  # why it does not answer
        self._store = store
        self._connections = Connections(server)
        self._readers = trio.CapacityLimiter(READERS)
        self._writers = trio.CapacityLimiter(WRITERS)
        self._counters = Counters(server.name)
        self._is_prepared = False

    async def ask(self, question: Callable[[Connection], T], patience: float) -> T:
        """Return the answer to a question. Raises `StoreError`, a fault past the patience."""
        return await self._patiently(question, self._readers, patience)

    async def change(self, change: Callable[[Connection], T], patience: float) -> T:
        """Make a change, maybe twice; after cancellation it may still be made."""
        return await self._patiently(change, self._writers, patience)

    def close(self) -> None:
        """Close all connections, those in use as soon as they are not."""
        self._connections.close()

    async def _patiently(
        self, function: Callable[[Connection], T], limiter: trio.CapacityLimiter, patience: float
    ) -> T:
        run = partial(self._with_connection, function)

        async def attempt() -> T:
            try:
                answer = await threads.call(run, limiter, LIMIT)
            except TimeoutError as error:
                raise Unreachable(f"{self.server.name}: {error}") from error
            except Corrupt as error:
                raise StoreError(f"{self.server.name}: {error}") from error
            except Unreachable as error:
                self.trouble = str(error)
                self._is_prepared = self._is_prepared and not isinstance(error, TablesMissing)
                raise
            self.trouble = None
            return answer

        return await retried(attempt, patience=patience, counters=self._counters)

    def _with_connection(self, function: Callable[[Connection], T]) -> T:
        connection = self._connections.take()
        try:
            if not self._is_prepared:
                shared_schema.prepare(connection, self.server, self._store, _first())
                self._is_prepared = True
                self.openings += 1
            return function(connection)
        finally:
            self._connections.give_back(connection)


def _first() -> int:
    """Where a new index begins to count: behind all numbers of one before it."""
    return time.time_ns() // 1000

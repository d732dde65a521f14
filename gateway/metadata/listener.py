"""Hears at once when another gateway has changed a shared index; where nobody tells, it waits."""

import logging

import trio

from backgate.gateway.errors import StoreError
from backgate.gateway.metadata.postgresql import Connection, Server

log = logging.getLogger(__name__)


class Listener:
    """LISTEN and NOTIFY, on a connection of its own; for one task."""

    def __init__(self, server: Server, gateway: int) -> None:
        self._server, self._me = server, str(gateway)
        self._channel = server.schema
        self._connection: Connection | None = None
        self._is_possible: bool | None = None  # None: the database was not asked yet

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def wait(self, seconds: float) -> None:
        """Return when another gateway has told something, in `seconds` at the latest."""
        with trio.move_on_after(seconds):
            while self._is_possible is not False and not await self._heard():
                pass
            if not self._is_possible:
                await trio.sleep_forever()

    def tell(self, db: Connection) -> None:
        """Tell the others, once the transaction is committed, that something has changed."""
        if self._is_possible:
            db.execute("SELECT pg_notify(?, ?)", (self._channel, self._me))

    async def _heard(self) -> bool:
        try:
            if self._connection is None:
                self._connection = await trio.to_thread.run_sync(Connection, self._server)
                self._is_possible = self._connection.listen(self._channel)
                return True  # what was told before is to be looked for
            await trio.lowlevel.wait_readable(self._connection.fileno())
            return any(told != self._me for told in self._connection.heard())
        except StoreError as error:
            log.debug("%s: nothing is heard: %s", self._server.name, error)
            self.close()
            await trio.sleep_forever()

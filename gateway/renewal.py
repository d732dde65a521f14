"""Credentials that expire or are replaced while a store is in use: read anew where they lie.

Only a store that has let us in before is waited for: one that refuses from the start has been given
wrong credentials, which waiting does not mend.
"""

import logging
import time

import trio

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import AnyCredentials, credentials_of
from backgate.gateway.errors import ConfigError
from backgate.gateway.provider import Provider

LOOK_EVERY = 3.0  # seconds between two looks at where the credentials lie

log = logging.getLogger(__name__)


class Renewal:
    """Keeps one provider's credentials as new as their source."""

    def __init__(
        self, config: RepositoryConfig, credentials: AnyCredentials | None, provider: Provider
    ) -> None:
        self._config, self._known, self._provider = config, credentials, provider
        self._next = 0.0  # monotonic seconds; when it is worth while to look again
        self.is_admitted = False  # the store has answered to credentials from here

    @property
    def source(self) -> str:
        """Where the credentials are said to lie."""
        return self._config.credentials

    async def look(self) -> None:
        """Give the provider the credentials as they are now, unless that was done just before."""
        if (now := time.monotonic()) < self._next:
            return
        self._next = now + LOOK_EVERY
        try:
            found = await trio.to_thread.run_sync(credentials_of, self._config)
            if found is None or found != self._known:
                await trio.to_thread.run_sync(self._provider.renew, found)
                self._known = found
        except ConfigError as error:
            log.warning("no new credentials: %s", error)

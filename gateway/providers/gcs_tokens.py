"""What opens a bucket of Google: a token for an hour, that Google's own library fetches."""

import threading
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import urllib3

from backgate.gateway.credentials import GoogleCredentials
from backgate.gateway.errors import ConfigError, Unreachable, WrongCredentials
from backgate.gateway.providers.web import brief

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


class Tokens:
    """Tokens for one account, each fetched once; without credentials there are none."""

    def __init__(
        self, credentials: GoogleCredentials | None, http: urllib3.PoolManager, origin: str
    ) -> None:
        self._lock = threading.Lock()
        self._account: Any = None
        if credentials is not None:
            self._account, self._fetching = _account(credentials, http, origin)

    @property
    def is_anonymous(self) -> bool:
        return self._account is None

    def headers(self, what: str) -> Mapping[str, str]:
        """Return what a request carries now; `what` begins the messages.

        Raises `WrongCredentials` when Google does not know the account, `Unreachable` when it
        cannot be asked.
        """
        if self._account is None:
            return {}
        from google.auth import exceptions

        try:
            with self._lock:
                if not self._account.valid:
                    self._account.refresh(self._fetching)
                return {"Authorization": f"Bearer {self._account.token}"}
        except exceptions.GoogleAuthError as error:
            if getattr(error, "retryable", False) or isinstance(error, exceptions.TransportError):
                raise Unreachable(f"{what}: no token: {brief(str(error))}") from error
            raise WrongCredentials(f"{what}: no token: {brief(str(error))}") from error

    def forget(self) -> None:
        """Fetch another token next time: the store did not take this one."""
        with self._lock:
            if self._account is not None:
                self._account.token = None


def _account(
    credentials: GoogleCredentials, http: urllib3.PoolManager, origin: str
) -> tuple[Any, Any]:
    try:  # what they hold is not typed
        users = import_module("google.oauth2.credentials")
        services = import_module("google.oauth2.service_account")
        transport = import_module("google.auth.transport.urllib3")
    except ImportError as error:
        raise ConfigError(
            f"{origin}: gs:// needs Google's library: pip install 'backgate[gcs]'"
        ) from error
    info = dict(credentials.account)
    kind = str(info.get("type"))
    try:
        if kind == "service_account":
            account = services.Credentials.from_service_account_info(info, scopes=[SCOPE])
        else:
            account = users.Credentials.from_authorized_user_info(info, scopes=[SCOPE])
    except (ValueError, AttributeError, TypeError):
        # Its own message may quote what is in the fields.
        raise ConfigError(f"{origin}: credentials: not a whole {kind}") from None
    return account, transport.Request(http)

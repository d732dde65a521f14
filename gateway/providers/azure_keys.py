"""What opens an Azure container: a shared access signature, as part of each URL.

One that was given is used as it is. From an account key Microsoft's SDK makes one for this
container alone, for hours; so no request is signed by itself.
"""

import threading
import time
from datetime import UTC, datetime, timedelta

from backgate.gateway.credentials import AzureCredentials
from backgate.gateway.errors import ConfigError

LIFETIME = 6 * 3600  # seconds
RENEWED_BEFORE = 3600  # seconds; the longest request must end before its signature does
CLOCKS_MAY_DIFFER = 900  # seconds; what Azure tolerates with other signatures too
PERMISSIONS = "racwdl"  # read, add, create, write, delete, list


class Signature:
    """A query that opens one container; "" without credentials."""

    def __init__(
        self, credentials: AzureCredentials | None, container: str, origin: str, *, is_https: bool
    ) -> None:
        self._credentials, self._container = credentials, container
        self._protocol = "https" if is_https else "https,http"
        self._lock = threading.Lock()
        self._query, self._until = "", 0.0  # monotonic seconds
        if credentials is not None and credentials.key is not None:
            _sdk(origin)
        elif credentials is not None:
            self._query = (credentials.sas or "").lstrip("?")

    @property
    def is_anonymous(self) -> bool:
        return self._credentials is None

    def query(self) -> str:
        """Return the signature that counts now."""
        if self._credentials is None or self._credentials.key is None:
            return self._query
        with self._lock:
            if time.monotonic() >= self._until:
                self._query = self._made(self._credentials)
                self._until = time.monotonic() + LIFETIME - RENEWED_BEFORE
            return self._query

    def _made(self, credentials: AzureCredentials) -> str:
        from azure.storage.blob import generate_container_sas

        now = datetime.now(UTC)
        return generate_container_sas(
            credentials.account or "",
            self._container,
            account_key=credentials.key,
            permission=PERMISSIONS,
            start=now - timedelta(seconds=CLOCKS_MAY_DIFFER),
            expiry=now + timedelta(seconds=LIFETIME),
            protocol=self._protocol,
        )


def _sdk(origin: str) -> None:
    try:
        import azure.storage.blob  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"{origin}: an account key needs Microsoft's SDK: pip install 'backgate[azure]'"
        ) from error

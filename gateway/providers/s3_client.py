"""Where a bucket is and what opens it; botocore's clients for it are made when first used.

botocore needs longer to make a client than a mount may take to come up, and what is read, listed
and checked does without one.
"""

import os
import ssl
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from backgate.gateway.credentials import Credentials
from backgate.gateway.errors import ConfigError
from backgate.gateway.profiles import Profile

if TYPE_CHECKING:
    from backgate.gateway.providers.s3_sdk import SdkClients

CONNECT_WITHIN = 10  # seconds
ANSWER_WITHIN = 30  # seconds without a byte, for an object's bytes or attributes
MOVE_WITHIN = 600  # seconds; stores copy and commit gigabytes before the first byte of an answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where the bucket is and how to reach it."""

    bucket: str
    endpoint_url: str
    region: str
    profile: Profile
    credentials: Credentials | None  # None: botocore looks for them where it is used to
    ca_bundle: str | None = None  # a file; None: what the system trusts

    @property
    def is_encrypted(self) -> bool:
        return self.endpoint_url.startswith("https:")

    @property
    def addressing(self) -> Literal["path", "virtual"]:
        # No certificate covers a bucket's name with dots.
        return "path" if "." in self.bucket else self.profile.addressing

    @property
    def bucket_url(self) -> str:
        """The URL to which a quoted key is appended."""
        scheme, _, host = self.endpoint_url.rstrip("/").partition("://")
        if self.addressing == "virtual":
            return f"{scheme}://{self.bucket}.{host}/"
        return f"{scheme}://{host}/{self.bucket}/"


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys that were configured, as botocore's signer asks for them."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)

    def get_frozen_credentials(self) -> "Keys":
        """Return keys that belong together: these never change."""
        return self


class Clients:
    """The clients of one bucket; they differ in how long they wait, and share all else."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._made: SdkClients | None = None
        self._making = threading.Lock()

    @property
    def quick(self) -> Any:
        """For what is answered at once."""
        return self._clients().quick

    @property
    def moving(self) -> Any:
        """For what the store takes its time for."""
        return self._clients().moving

    def close(self) -> None:
        if self._made is not None:
            self._made.close()

    def _clients(self) -> "SdkClients":
        with self._making:
            if self._made is None:
                from backgate.gateway.providers.s3_sdk import SdkClients

                self._made = SdkClients(self._connection)
            return self._made


def keys_of(given: Credentials | None) -> Any:
    """Return what signs requests; None when there is nothing. Raises `ConfigError`."""
    if given is not None:
        return Keys(given.access_key, given.secret_key, given.session_token)
    from backgate.gateway.providers.s3_sdk import keys_found

    return keys_found()


def authorities(ca_bundle: str | None, origin: str) -> str | None:
    """Return the file of certificates to trust; `ConfigError` when `ca_bundle` is not one."""
    if ca_bundle is None:
        system = ssl.get_default_verify_paths().cafile
        return os.environ.get("AWS_CA_BUNDLE") or system
    path = os.path.expanduser(ca_bundle)
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # an SSLError is one
        why = error.strerror or "no certificate in it"
        raise ConfigError(f"{origin}: ca_bundle: {path}: {why}") from error
    return path

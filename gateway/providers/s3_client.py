"""Make botocore clients that speak a provider's dialect, fail in time, and leave retrying to us."""

import base64
import hashlib
import os
import ssl
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import botocore.credentials
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.handlers import add_expect_header

from backgate.gateway import threads
from backgate.gateway.credentials import Credentials
from backgate.gateway.errors import ConfigError
from backgate.gateway.profiles import Profile

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


class Clients:
    """The clients of one bucket; they differ in how long they wait, and share all else."""

    def __init__(self, connection: Connection) -> None:
        session = _session()
        self.keys = _keys(session, connection.credentials)
        self.quick = _client(session, connection, ANSWER_WITHIN, threads.CONNECTIONS)
        self.moving = _client(session, connection, MOVE_WITHIN, threads.PUT_THREADS)

    def close(self) -> None:
        for client in (self.quick, self.moving):
            client.close()


def authorities(ca_bundle: str | None, origin: str) -> str | None:
    """Return the file of certificates to trust; `ConfigError` when `ca_bundle` is not one."""
    if ca_bundle is None:
        system = ssl.get_default_verify_paths().cafile
        return None if "AWS_CA_BUNDLE" in os.environ else system
    path = os.path.expanduser(ca_bundle)
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # an SSLError is one
        why = error.strerror or "no certificate in it"
        raise ConfigError(f"{origin}: ca_bundle: {path}: {why}") from error
    return path


@cache
def _models() -> botocore.loaders.Loader:
    """What botocore knows of S3: two megabytes of JSON, read once."""
    return botocore.loaders.create_loader()


def _session() -> botocore.session.Session:
    session = botocore.session.Session()
    session.register_component("data_loader", _models())
    # The metadata address of a cloud machine is asked only by a profile that says so.
    session.get_component("credential_provider").remove("iam-role")
    return session


def _keys(
    session: botocore.session.Session, given: Credentials | None
) -> botocore.credentials.Credentials | None:
    if given is not None:
        return botocore.credentials.Credentials(
            given.access_key, given.secret_key, given.session_token
        )
    try:
        return session.get_credentials()
    except BotoCoreError as error:  # a profile that is named and not there, or not whole
        raise ConfigError(f"credentials: {error}") from error


def _client(
    session: botocore.session.Session, connection: Connection, wait: float, pool: int
) -> Any:
    given = connection.credentials
    client: Any = session.create_client(
        "s3",
        endpoint_url=connection.endpoint_url,
        region_name=connection.region,
        aws_access_key_id=None if given is None else given.access_key,
        aws_secret_access_key=None if given is None else given.secret_key,
        aws_session_token=None if given is None else given.session_token,
        verify=connection.ca_bundle,
        config=Config(
            user_agent_extra="backgate",
            connect_timeout=CONNECT_WITHIN,
            read_timeout=wait,
            max_pool_connections=pool,
            retries={"total_max_attempts": 1, "mode": "standard"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={
                "addressing_style": connection.addressing,
                "payload_signing_enabled": not connection.is_encrypted,
            },
        ),
    )
    # A server that does not know 100-continue lets each PUT wait a second, or a minute.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    client.meta.events.register("before-call.s3", _stay_in_the_region)
    if connection.profile.delete_integrity == "md5":
        client.meta.events.register("before-sign.s3.DeleteObjects", _md5_instead_of_crc)
    return client


def _stay_in_the_region(params: dict[str, Any], **_: Any) -> None:
    """Tell botocore that it has followed a redirect already: it would follow one to itself."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _md5_instead_of_crc(request: Any, **_: Any) -> None:
    for name in [name for name in request.headers if name.lower().startswith(_CHECKSUMS)]:
        del request.headers[name]
    request.headers["Content-MD5"] = content_md5(request.body)


_CHECKSUMS = ("x-amz-checksum-", "x-amz-sdk-checksum-")


def content_md5(body: bytes | bytearray | memoryview) -> str:
    """Return the header by which a store checks that `body` arrived unharmed."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()

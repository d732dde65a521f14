"""botocore's clients of one bucket: they speak a provider's dialect, fail in time, never retry."""

from functools import cache
from typing import Any

import botocore.credentials
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.handlers import add_expect_header

from backgate.gateway import threads
from backgate.gateway.errors import ConfigError
from backgate.gateway.providers import s3_client
from backgate.gateway.providers.checksums import Outgoing
from backgate.gateway.providers.s3_client import Connection


class SdkClients:
    """The clients of one bucket; to make them takes a quarter of a second."""

    def __init__(self, connection: Connection) -> None:
        session = _session()
        self.quick = _client(session, connection, s3_client.ANSWER_WITHIN, threads.CONNECTIONS)
        moving = threads.PUT_THREADS + threads.COPY_THREADS
        self.moving = _client(session, connection, s3_client.MOVE_WITHIN, moving)

    def close(self) -> None:
        for client in (self.quick, self.moving):
            client.close()


def keys_found() -> botocore.credentials.Credentials | None:
    """Return the keys that botocore finds where it is used to look; raises `ConfigError`."""
    try:
        return _session().get_credentials()
    except BotoCoreError as error:  # a profile that is named and not there, or not whole
        raise ConfigError(f"credentials: {error}") from error


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
            connect_timeout=s3_client.CONNECT_WITHIN,
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
    if not connection.profile.expect_100:
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
    request.headers["Content-MD5"] = Outgoing(request.body).content_md5


_CHECKSUMS = ("x-amz-checksum-", "x-amz-sdk-checksum-")

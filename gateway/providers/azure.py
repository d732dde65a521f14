"""Azure Blob Storage: a container as a bucket, its block lists as multipart uploads.

Blocks that are staged for a key are one heap, whoever staged them: when one upload to a key is
committed, others to the same key are gone, and their commits say so. Blocks of an upload that was
given up are dropped by Azure after a week.
"""

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import AnyCredentials, AzureCredentials
from backgate.gateway.endpoints import endpoint_of
from backgate.gateway.errors import ConfigError, Replaced, Unsupported
from backgate.gateway.provider import (
    Abilities,
    ObjectInfo,
    Provider,
)
from backgate.gateway.providers import ranges
from backgate.gateway.providers.azure_blobs import AzureBlobs
from backgate.gateway.providers.azure_client import AzureClient
from backgate.gateway.providers.azure_keys import Signature
from backgate.gateway.providers.checksums import Outgoing
from backgate.gateway.providers.pending_uploads import reserving
from backgate.gateway.providers.s3_client import authorities
from backgate.gateway.providers.web import Web, http_date_ns
from backgate.gateway.providers.with_uploads import ProviderWithUploads, prefix_in
from backgate.gateway.units import SECOND_NS

Signed = Callable[[AnyCredentials | None], Signature]

_DIGITS = 16  # hexadecimal digits of a body's MD5 in the name of its block: which version it is


class Azure(ProviderWithUploads):
    """A container."""

    checksums = ("md5",)

    def __init__(self, client: AzureClient, abilities: Abilities, signed: Signed) -> None:
        self._client, self._signed = client, signed
        self._blobs = AzureBlobs(client)
        super().__init__(self._blobs, abilities)

    def check(self) -> None:
        self._blobs.check()
        account = self._blobs.account()
        if told_ns := http_date_ns(account.headers.get("date", "")):
            self.clock_skew = told_ns / SECOND_NS - time.time()
        if account.headers.get("x-ms-is-hns-enabled", "") == "true":
            why = "the account has a hierarchical namespace, in which directories are blobs"
            raise Unsupported(f"{self.name}: check: {why}: use an account without one")

    def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        if stop <= start:
            return b""
        try:
            answer = self._blobs.range(key, start, stop, etag)
        except Replaced:
            self.head(key)  # of no version of it, if it is not there
            raise
        if answer.status == ranges.BEHIND_THE_END or not answer.body:
            return ranges.nothing_of(self, key, start, etag)
        return ranges.bytes_of(answer, start, stop, f"{self.name}: get {key!r}", key)

    def copy(
        self, source: str, target: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        self.refuse_what_it_cannot_hold(target, 0, metadata)
        headers = None if metadata is None else self._headers(metadata, target)
        if source != target:
            self._blobs.copy(source, target, headers)
        elif headers is not None:
            self._blobs.set_metadata(source, headers)
        return self.head(target)

    def send_part(self, key: str, upload: str, number: int, outgoing: Outgoing) -> str:
        self._uploads.require(key, upload)
        etag = outgoing.md5.hex()[:_DIGITS]
        self._blobs.stage(key, _block(upload, number, etag), outgoing)
        return etag

    def copy_part(
        self,
        key: str,
        upload: str,
        number: int,
        source: str,
        start: int,
        stop: int,
        etag: str | None = None,
    ) -> str:
        raise Unsupported(f"{self.name}: copy_part {key!r}: the store is not asked to", key=key)

    def commit_upload(
        self, key: str, upload: str, parts: Sequence[tuple[int, str]], *, if_absent: bool = False
    ) -> ObjectInfo:
        self.refuse_what_it_cannot_hold(key, if_absent=if_absent)
        begun = self._uploads.begun(key, upload)
        blocks = [_block(upload, number, etag) for number, etag in parts]
        self._blobs.commit(key, blocks, begun.metadata, if_absent=if_absent)
        self._uploads.end(key, upload)
        return self.head(key)

    def renew(self, credentials: AnyCredentials | None) -> None:
        self._client.renew(self._signed(credentials))

    def close(self) -> None:
        self._client.close()


def _block(upload: str, number: int, etag: str) -> str:
    """Return a block's name: all of a blob have one length, and at most 64 bytes."""
    return base64.b64encode(f"{upload}{number:05}{etag:.{_DIGITS}}".encode()).decode()


def open_url(config: RepositoryConfig, credentials: AnyCredentials | None) -> tuple[Provider, str]:
    """Return the container and the prefix of `az://container/prefix`; raises `ConfigError`."""
    container, _, path = config.url.partition("://")[2].partition("/")
    endpoint = endpoint_of(config)
    if "?" in endpoint.url:
        raise ConfigError(f"{config.origin}: endpoint_url: a signature belongs into credentials")

    def signed(found: AnyCredentials | None) -> Signature:
        keys = found if isinstance(found, AzureCredentials) else None
        return Signature(
            None if keys is None else _of_account(keys, config, endpoint.url),
            container,
            config.origin,
            is_https=endpoint.url.startswith("https:"),
        )

    web = Web(endpoint.url, authorities(config.ca_bundle, config.origin))
    client = AzureClient(f"az://{container}", container, web, signed(credentials))
    abilities = endpoint.profile.abilities()
    provider = Azure(client, replace(abilities, keys=reserving(abilities.keys)), signed)
    return provider, prefix_in(path)


def _of_account(
    keys: AzureCredentials, config: RepositoryConfig, endpoint_url: str
) -> AzureCredentials:
    """Return `keys` with the account's name, which a signature is made for."""
    named = config.account or _account_in(endpoint_url)
    if keys.account is not None and named is not None and keys.account != named:
        raise ConfigError(
            f"{config.origin}: credentials: they are of the storage account {keys.account!r}, "
            f"not of {named!r}"
        )
    account = keys.account or named
    if account is None and keys.key is not None:
        raise ConfigError(f"{config.origin}: account is missing: whose key is it?")
    return replace(keys, account=account)


def _account_in(endpoint_url: str) -> str | None:
    """Return the account in `https://ACCOUNT.blob.HOST`, or in `http://HOST:PORT/ACCOUNT`."""
    parts = urlsplit(endpoint_url)
    account, separator, _ = (parts.hostname or "").partition(".blob.")
    return account if separator else parts.path.strip("/").partition("/")[0] or None

"""Azure Blob Storage: a container as a bucket, its block lists as multipart uploads.

Blocks that are staged for a key are one heap, whoever staged them: when one upload to a key is
committed, others to the same key are gone, and their commits say so.
"""

import base64
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import AnyCredentials, AzureCredentials
from backgate.gateway.endpoints import endpoint_of
from backgate.gateway.errors import ConfigError, Replaced, Unsupported
from backgate.gateway.provider import (
    NO_METADATA,
    Abilities,
    Body,
    ObjectInfo,
    Page,
    PendingUpload,
    Provider,
)
from backgate.gateway.providers import ranges
from backgate.gateway.providers.azure_blobs import AzureBlobs
from backgate.gateway.providers.azure_client import AzureClient
from backgate.gateway.providers.azure_keys import Signature
from backgate.gateway.providers.pending_uploads import PendingUploads, reserving, without_ours
from backgate.gateway.providers.s3_client import authorities
from backgate.gateway.providers.s3_metadata import to_headers
from backgate.gateway.providers.web import Web, http_date_ns
from backgate.gateway.units import SECOND_NS

_DIGITS = 16  # hexadecimal digits of a body's MD5 in the name of its block: which version it is


class Azure(Provider):
    """A container."""

    def __init__(self, container: str, client: AzureClient, abilities: Abilities) -> None:
        self.name = f"az://{container}"
        self.abilities = abilities
        self._client = client
        self._blobs = AzureBlobs(client)
        self._uploads = PendingUploads(self._blobs)

    def check(self) -> None:
        self._blobs.check()
        account = self._blobs.account()
        if told_ns := http_date_ns(account.headers.get("date", "")):
            self.clock_skew = told_ns / SECOND_NS - time.time()
        if account.headers.get("x-ms-is-hns-enabled", "") == "true":
            why = "the account has a hierarchical namespace, in which directories are blobs"
            raise Unsupported(f"{self.name}: check: {why}: use an account without one")

    def head(self, key: str) -> ObjectInfo:
        return self._blobs.head(key)

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

    def put(
        self,
        key: str,
        body: Body,
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        self.refuse_what_it_cannot_hold(key, len(body), metadata, if_absent=if_absent)
        return self._blobs.put(key, body, self._headers(metadata, key), if_absent=if_absent)

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

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        return self._blobs.delete(keys)

    def page(
        self,
        prefix: str = "",
        delimiter: str = "",
        *,
        after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> Page:
        found = self._blobs.page(prefix, delimiter, after=after, token=token, limit=limit)
        return without_ours(found)

    def begin_upload(self, key: str, metadata: Mapping[str, str] = NO_METADATA) -> str:
        self.refuse_what_it_cannot_hold(key, 0, metadata)
        return self._uploads.begin(key, self._headers(metadata, key))

    def put_part(self, key: str, upload: str, number: int, body: Body) -> str:
        self._uploads.require(key, upload)
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        etag = digest.hex()[:_DIGITS]
        self._blobs.stage(key, _block(upload, number, etag), body, digest)
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

    def abort_upload(self, key: str, upload: str) -> None:
        self._uploads.end(key, upload)  # Azure drops the blocks after a week

    def uploads(self, prefix: str = "") -> Sequence[PendingUpload]:
        return self._uploads.pending(prefix)

    def close(self) -> None:
        self._client.close()

    def _headers(self, metadata: Mapping[str, str], key: str) -> dict[str, str]:
        return to_headers(metadata, self.abilities.limits.metadata_max, self.name, key)


def _block(upload: str, number: int, etag: str) -> str:
    """Return a block's name: all of a blob have one length, and at most 64 bytes."""
    return base64.b64encode(f"{upload}{number:05}{etag:.{_DIGITS}}".encode()).decode()


def open_url(config: RepositoryConfig, credentials: AnyCredentials | None) -> tuple[Provider, str]:
    """Return the container and the prefix of `az://container/prefix`; raises `ConfigError`."""
    container, _, path = config.url.partition("://")[2].partition("/")
    endpoint = endpoint_of(config)
    if "?" in endpoint.url:
        raise ConfigError(f"{config.origin}: endpoint_url: a signature belongs into credentials")
    keys = credentials if isinstance(credentials, AzureCredentials) else None
    web = Web(endpoint.url, authorities(config.ca_bundle, config.origin))
    signature = Signature(
        None if keys is None else _of_account(keys, config, endpoint.url),
        container,
        config.origin,
        is_https=endpoint.url.startswith("https:"),
    )
    client = AzureClient(f"az://{container}", container, web, signature)
    abilities = endpoint.profile.abilities()
    path = path.strip("/")
    provider = Azure(container, client, replace(abilities, keys=reserving(abilities.keys)))
    return provider, f"{path}/" if path else ""


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

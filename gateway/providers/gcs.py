"""Google Cloud Storage: objects by their generation, uploads as objects that are composed.

The parts of a multipart upload are objects that no listing shows; at the end the store composes
one of them, 32 at a time.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import AnyCredentials, GoogleCredentials
from backgate.gateway.endpoints import endpoint_of
from backgate.gateway.errors import AlreadyThere, NotFound, Replaced, Unsupported
from backgate.gateway.provider import (
    NO_METADATA,
    Abilities,
    ObjectInfo,
    Provider,
)
from backgate.gateway.providers import ranges
from backgate.gateway.providers.checksums import CRC32C_IS_FAST, Outgoing
from backgate.gateway.providers.gcs_client import GcsClient
from backgate.gateway.providers.gcs_objects import GcsObjects
from backgate.gateway.providers.gcs_tokens import Tokens
from backgate.gateway.providers.pending_uploads import (
    part_key,
    reserving,
)
from backgate.gateway.providers.s3_client import authorities
from backgate.gateway.providers.web import Web, http_date_ns
from backgate.gateway.providers.with_uploads import ProviderWithUploads, prefix_in
from backgate.gateway.units import SECOND_NS

TokensOf = Callable[[AnyCredentials | None], Tokens]

COMPOSED_MAX = 32  # objects in one compose


class Gcs(ProviderWithUploads):
    """A bucket."""

    checksums = ("crc32c",) if CRC32C_IS_FAST else ("md5",)

    def __init__(self, client: GcsClient, abilities: Abilities, tokens: TokensOf) -> None:
        self._client, self._tokens = client, tokens
        self._objects = GcsObjects(client)
        super().__init__(self._objects, abilities)

    def check(self) -> None:
        if told_ns := http_date_ns(self._objects.date()):
            self.clock_skew = told_ns / SECOND_NS - time.time()

    def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        if stop <= start:
            return b""
        if etag is not None and not (etag.isascii() and etag.isdigit()):
            self.head(key)
            raise Replaced(f"{self.name}: get {key!r}: another version now", key=key)
        answer = self._objects.range(key, start, stop, etag)
        if answer.status == ranges.BEHIND_THE_END:
            return ranges.nothing_of(self, key, start, etag)
        return ranges.bytes_of(answer, start, stop, f"{self.name}: get {key!r}", key)

    def copy(
        self, source: str, target: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        self.refuse_what_it_cannot_hold(target, 0, metadata)
        headers = None if metadata is None else self._headers(metadata, target)
        self._objects.copy(source, target, headers)
        return self.head(target)

    def send_part(self, key: str, upload: str, number: int, outgoing: Outgoing) -> str:
        self._uploads.require(key, upload)
        part = part_key(upload, number)
        return self._objects.put(part, outgoing, NO_METADATA, if_absent=False).etag

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
        raise Unsupported(f"{self.name}: copy_part {key!r}: Google copies whole objects", key=key)

    def commit_upload(
        self, key: str, upload: str, parts: Sequence[tuple[int, str]], *, if_absent: bool = False
    ) -> ObjectInfo:
        self.refuse_what_it_cannot_hold(key, if_absent=if_absent)
        begun = self._uploads.begun(key, upload)
        if if_absent:
            self._refuse_if_there(key)  # before much is composed in vain
        level = 0
        sources = [(part_key(upload, number), etag) for number, etag in parts]
        while len(sources) > COMPOSED_MAX:
            level += 1
            sources = self._composed(upload, level, sources)
        self._objects.compose(key, sources, begun.metadata, if_absent=if_absent)
        self._uploads.end(key, upload)
        return self.head(key)

    def renew(self, credentials: AnyCredentials | None) -> None:
        self._client.renew(self._tokens(credentials))

    def close(self) -> None:
        self._client.close()

    def _refuse_if_there(self, key: str) -> None:
        with suppress(NotFound):
            self.head(key)
            raise AlreadyThere(f"{self.name}: commit_upload {key!r}: already there", key=key)

    def _composed(
        self, upload: str, level: int, sources: Sequence[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        """Return fewer objects that hold the same."""
        made: list[tuple[str, str]] = []
        for first in range(0, len(sources), COMPOSED_MAX):
            target = part_key(upload, f"{level}.{first}")
            some = sources[first : first + COMPOSED_MAX]
            made.append((target, self._objects.compose(target, some, NO_METADATA)))
        return made


def open_url(config: RepositoryConfig, credentials: AnyCredentials | None) -> tuple[Provider, str]:
    """Return the bucket and the prefix of `gs://bucket/prefix`; raises `ConfigError`."""
    bucket, _, path = config.url.partition("://")[2].partition("/")
    endpoint = endpoint_of(config)
    web = Web(endpoint.url, authorities(config.ca_bundle, config.origin))

    def tokens(found: AnyCredentials | None) -> Tokens:
        account = found if isinstance(found, GoogleCredentials) else None
        return Tokens(account, web.http, config.origin)

    client = GcsClient(f"gs://{bucket}", bucket, web, tokens(credentials))
    abilities = endpoint.profile.abilities()
    provider = Gcs(client, replace(abilities, keys=reserving(abilities.keys)), tokens)
    return provider, prefix_in(path)

"""What is alike of stores that know objects but keep no list of uploads: Azure's and Google's."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from backgate.gateway.errors import NotFound, Replaced
from backgate.gateway.provider import (
    NO_METADATA,
    Abilities,
    ObjectInfo,
    Page,
    PendingUpload,
)
from backgate.gateway.providers.checksums import Outgoing, Sender
from backgate.gateway.providers.pending_uploads import Objects, PendingUploads, without_ours
from backgate.gateway.providers.s3_metadata import to_headers


class AnyObjects(Objects, Protocol):
    """The verbs that need nothing added to them."""

    def head(self, key: str) -> ObjectInfo: ...

    def put_damaged(self, key: str) -> None: ...

    def delete_version(self, key: str, etag: str) -> None: ...


class ProviderWithUploads(Sender):
    """A provider by the verbs of `objects`; its pending uploads are objects of their own."""

    def __init__(self, objects: AnyObjects, abilities: Abilities) -> None:
        self.name, self.abilities = objects.name, abilities
        self._verbs = objects
        self._uploads = PendingUploads(objects)

    def head(self, key: str) -> ObjectInfo:
        return self._verbs.head(key)

    def send(
        self, key: str, outgoing: Outgoing, metadata: Mapping[str, str], *, if_absent: bool
    ) -> ObjectInfo:
        size = len(outgoing.body)
        self.refuse_what_it_cannot_hold(key, size, metadata, if_absent=if_absent)
        return self._verbs.put(key, outgoing, self._headers(metadata, key), if_absent=if_absent)

    def put_damaged(self, key: str, checksum: str) -> None:
        self._verbs.put_damaged(key)

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        return self._verbs.delete(keys)

    def delete_version(self, key: str, etag: str) -> None:
        if not self.abilities.conditional_delete:
            super().delete_version(key, etag)
        try:
            self._verbs.delete_version(key, etag)
        except NotFound as error:
            if error.key is None:
                raise  # it is the bucket that is not there
        except Replaced:
            with suppress(NotFound):  # of no version of it, if it is not there
                self.head(key)
                raise

    def page(
        self,
        prefix: str = "",
        delimiter: str = "",
        *,
        after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> Page:
        found = self._verbs.page(prefix, delimiter, after=after, token=token, limit=limit)
        return without_ours(found)

    def begin_upload(self, key: str, metadata: Mapping[str, str] = NO_METADATA) -> str:
        self.refuse_what_it_cannot_hold(key, 0, metadata)
        return self._uploads.begin(key, self._headers(metadata, key))

    def abort_upload(self, key: str, upload: str) -> None:
        self._uploads.end(key, upload)

    def uploads(self, prefix: str = "") -> Sequence[PendingUpload]:
        return self._uploads.pending(prefix)

    def _headers(self, metadata: Mapping[str, str], key: str) -> dict[str, str]:
        return to_headers(metadata, self.abilities.limits.metadata_max, self.name, key)


def prefix_in(path: str) -> str:
    """Return the prefix of keys that the path of a repository's URL says."""
    path = path.strip("/")
    return f"{path}/" if path else ""

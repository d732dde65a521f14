"""What can be done with the objects of one bucket of Google Cloud Storage."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from backgate.gateway.errors import NotAsSent, NotFound, Replaced, Unreachable
from backgate.gateway.provider import NO_METADATA, ObjectInfo, Page
from backgate.gateway.providers import ranges
from backgate.gateway.providers.batch import answers_in, batch_of
from backgate.gateway.providers.checksums import CRC32C_IS_FAST, Outgoing
from backgate.gateway.providers.gcs_client import Call, GcsClient
from backgate.gateway.providers.related import Related
from backgate.gateway.providers.s3_listing import storable
from backgate.gateway.providers.s3_metadata import from_headers
from backgate.gateway.providers.web import LIST_WITHIN, MOVE_WITHIN, Answer, brief, size_from
from backgate.gateway.units import KIB, SECOND_NS

KIND = "application/octet-stream"
ERROR_MAX = 64 * KIB  # bytes of an answer that says no

DAY = 86400  # seconds
MICROSECOND_NS = 1000

_FIELDS = "name,size,timeCreated,generation"
_NO_BATCH = {400, 404, 405, 501}  # what emulators answer that know no batches
_SEPARATOR = "\n"  # no key of Google's holds it
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class GcsObjects:
    """The verbs, for keys of any kind; any number of threads may call them."""

    def __init__(self, client: GcsClient) -> None:
        self.name = client.name
        self._client = client
        self._deletes_batches = True

    def head(self, key: str) -> ObjectInfo:
        query = {"fields": f"{_FIELDS},metadata"}
        found = self._client.json(Call(verb="head", method="GET", key=key, query=query))
        return self._info(found, "head", from_headers(_metadata(found)))

    def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        """Return the range, fewer bytes where the object ends, and none where it has ended."""
        answer = self.range(key, start, stop, etag)
        if answer.status == ranges.BEHIND_THE_END:
            return b""
        return ranges.bytes_of(answer, start, stop, f"{self.name}: get {key!r}", key)

    def range(self, key: str, start: int, stop: int, etag: str | None) -> Answer:
        """Return the answer to a ranged GET, also one that there is nothing.

        What Google says where it sends no bytes is plain text, so what it means is asked for.
        """
        call = Call(
            verb="get",
            method="GET",
            key=key,
            query={"alt": "media"} | ({} if etag is None else {"ifGenerationMatch": etag}),
            # An object that is stored compressed comes as it is stored, and no longer.
            headers={"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "gzip"},
            limit=max(stop - start, ERROR_MAX),
            fine=(ranges.BEHIND_THE_END, 404),
            precondition=Replaced,
        )
        answer = self._client.asked(call)
        if answer.status == 404:
            self.head(key)
            raise Unreachable(f"{self.name}: get {key!r}: not found, and yet there", key=key)
        told = answer.headers.get("x-goog-generation", etag)
        if etag is not None and told != etag:
            raise Replaced(f"{self.name}: get {key!r}: another version now", key=key)
        return answer

    def put(
        self, key: str, outgoing: Outgoing, metadata: Mapping[str, str], *, if_absent: bool
    ) -> ObjectInfo:
        field, checksum = _summed(outgoing)
        sums = {field: checksum}
        found = self._client.json(_put(key, outgoing, sums, metadata, if_absent=if_absent))
        told = str(found.get(field, checksum))
        if told != checksum:
            why = f"the store has bytes of {field} {brief(told)}, not {checksum}"
            raise NotAsSent(f"{self.name}: put {key!r}: {why}", key=key, is_stored=True)
        return self._info(found, "put", from_headers(metadata))

    def put_damaged(self, key: str) -> None:
        """Store a body with the checksum of another."""
        arrived, sent = Outgoing(b"as it arrived"), Outgoing(b"as it was sent")
        self._client.json(_put(key, arrived, dict([_summed(sent)])))

    def copy(self, source: str, target: str, metadata: Mapping[str, str] | None) -> None:
        """Copy, in as many turns as the store needs."""
        body = None if metadata is None else {"contentType": KIND, "metadata": dict(metadata)}
        query: dict[str, str] = {}
        action = self._client.rewriting(target)
        while True:
            found = self._client.json(
                _json_call("copy", "POST", source, body, action=action, query=query)
            )
            if found.get("done"):
                return
            query = {"rewriteToken": str(found.get("rewriteToken", ""))}

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        """Delete, in one request where the store can; an absent key counts as deleted."""
        answers = self._delete_batch(keys) if len(keys) > 1 and self._deletes_batches else None
        if answers is None:
            answers = [self._client.ask(_delete(key)) for key in keys]
        failed: dict[str, Exception] = {}
        for key, answer in zip(keys, answers, strict=True):
            if answer.is_fine:
                continue
            error = self._client.error(answer, _delete(key))
            if isinstance(error, NotFound) and error.key is None:
                raise error  # the bucket is gone
            if not isinstance(error, NotFound):
                failed[key] = error
        return failed

    def delete_version(self, key: str, etag: str) -> None:
        """Delete an object, or raise `Replaced`; `NotFound` where there is none."""
        query = {"ifGenerationMatch": etag}
        call = Call(verb="delete", method="DELETE", key=key, query=query, precondition=Replaced)
        self._client.asked(call)

    def page(
        self, prefix: str, delimiter: str, *, after: str, token: str | None, limit: int
    ) -> Page:
        """Return a page. Its token holds the last prefix: no later page tells that again."""
        told, _, google_token = (token or "").partition(_SEPARATOR)
        query = {
            "maxResults": str(limit),
            "fields": f"kind,nextPageToken,prefixes,items({_FIELDS})",
        }
        query |= {"prefix": prefix} if prefix else {}
        query |= {"delimiter": delimiter} if delimiter else {}
        query |= {"startOffset": after + "\0"} if after and token is None else {}
        query |= {"pageToken": google_token} if google_token else {}
        found = self._client.json(Call(verb="page", method="GET", query=query, wait=LIST_WITHIN))
        if found.get("kind") != "storage#objects":
            raise Unreachable(f"{self.name}: page {prefix!r}: something else than a listing")
        objects = [self._info(one, "page", None) for one in found.get("items", ())]
        prefixes = [one for one in found.get("prefixes", ()) if one > told]
        following = found.get("nextPageToken")
        last = max([told, *prefixes])
        return Page(objects, prefixes, f"{last}{_SEPARATOR}{following}" if following else None)

    def date(self) -> str:
        """Return the store's clock, as a header has it."""
        query = {"maxResults": "1", "fields": "kind"}
        call = Call(verb="check", method="GET", query=query)
        return self._client.asked(call).headers.get("date", "")

    def compose(
        self,
        target: str,
        sources: Sequence[tuple[str, str]],
        metadata: Mapping[str, str],
        *,
        if_absent: bool = False,
    ) -> str:
        """Make `target` of the objects `sources` (key, generation); return its generation."""
        body = {
            "sourceObjects": [{"name": key, "generation": etag} for key, etag in sources],
            "destination": {"contentType": KIND, "metadata": dict(metadata)},
        }
        query = _condition(if_absent=if_absent)
        call = _json_call("commit_upload", "POST", target, body, action="/compose", query=query)
        found = self._client.json(call)
        return str(found.get("generation", ""))

    def _delete_batch(self, keys: Sequence[str]) -> list[Answer] | None:
        """Return an answer for each key; None where there are no batches."""
        call = Call(verb="delete", method="POST")
        batch = batch_of("DELETE", [self._client.object_target(key) for key in keys])
        answer = self._client.batch(call, batch)
        if answer.status in _NO_BATCH:
            self._deletes_batches = False
            return None
        if not answer.is_fine:
            raise self._client.error(answer, call)
        return answers_in(answer, len(keys), f"{self.name}: delete")

    def _info(self, found: Any, verb: str, metadata: Mapping[str, str] | None) -> ObjectInfo:
        """Return what the JSON of an object says; `Unreachable` when it does not say enough."""
        try:
            size = size_from(str(found["size"]))
            if size is None:
                raise ValueError("a size")
            return ObjectInfo(
                str(found["name"]),
                size,
                _date_ns(found["timeCreated"]),
                str(found["generation"]),
                metadata,
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise Unreachable(f"{self.name}: {verb}: an object without {error}") from error


def _summed(outgoing: Outgoing) -> tuple[str, str]:
    """Return what vouches for a body: a field of Google's, and its text."""
    if CRC32C_IS_FAST:
        return "crc32c", outgoing.crc32c
    return "md5Hash", outgoing.content_md5


def _put(
    key: str,
    outgoing: Outgoing,
    sums: Mapping[str, str],
    metadata: Mapping[str, str] = NO_METADATA,
    *,
    if_absent: bool = False,
) -> Call:
    described = {"name": key, "contentType": KIND, "metadata": dict(metadata), **sums}
    related = Related(described, outgoing.body)
    fields = {"uploadType": "multipart", "fields": f"{_FIELDS},{','.join(sums)}"}
    return Call(
        verb="put",
        method="POST",
        key=key,
        query=fields | _condition(if_absent=if_absent),
        headers={"Content-Type": related.content_type},
        body=related,
        is_upload=True,
    )


def _json_call(
    verb: str,
    method: str,
    key: str,
    body: Mapping[str, Any] | None,
    *,
    action: str = "",
    query: Mapping[str, str] | None = None,
) -> Call:
    return Call(
        verb=verb,
        method=method,
        key=key,
        action=action,
        query=query or {},
        headers={} if body is None else {"Content-Type": "application/json"},
        body=None if body is None else json.dumps(body).encode(),
        wait=MOVE_WITHIN,
    )


def _delete(key: str) -> Call:
    return Call(verb="delete", method="DELETE", key=key)


def _condition(*, if_absent: bool) -> dict[str, str]:
    return {"ifGenerationMatch": "0"} if if_absent else {}


def _metadata(found: Any) -> dict[str, str]:
    metadata = found.get("metadata") or {}
    return {str(name): str(text) for name, text in metadata.items()}


def _date_ns(text: str) -> int:
    """`2026-11-22T14:05:28.123Z`."""
    since = datetime.fromisoformat(text) - _EPOCH
    seconds = since.days * DAY + since.seconds
    return storable(seconds * SECOND_NS + since.microseconds * MICROSECOND_NS)

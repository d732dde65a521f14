"""What can be done with the blobs and blocks of one Azure container."""

import time
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from backgate.gateway.errors import NotAsSent, NotFound, Replaced, StoreError, Unreachable
from backgate.gateway.provider import NO_METADATA, ObjectInfo, Page
from backgate.gateway.providers import azure_listing, ranges
from backgate.gateway.providers.azure_client import AzureClient, Call
from backgate.gateway.providers.azure_errors import code_of
from backgate.gateway.providers.azure_metadata import from_azure, to_azure
from backgate.gateway.providers.batch import answers_in, batch_of
from backgate.gateway.providers.checksums import Outgoing
from backgate.gateway.providers.s3_body import PieceByPiece
from backgate.gateway.providers.web import LIST_WITHIN, MOVE_WITHIN, Answer, brief, http_date_ns
from backgate.gateway.units import KIB

START_VERSION = "2026-02-06"  # of the service: the first whose listings start at a key
COPIED_WITHIN = 1500  # seconds that a copy may go on behind its answer
ASK_AGAIN = (0.05, 5.0)  # seconds between two looks at a copy: the first, and the longest
ERROR_MAX = 64 * KIB  # bytes of an answer that says no

_NO_BATCH = {400, 404, 405, 409, 501}  # what accounts answer that know no batches


class AzureBlobs:
    """The verbs, for keys of any kind; any number of threads may call them."""

    def __init__(self, client: AzureClient) -> None:
        self.name = client.name
        self._client = client
        self._deletes_batches = True
        self._starts_at_keys = True

    def head(self, key: str) -> ObjectInfo:
        answer = self._client.asked(Call(verb="head", method="HEAD", key=key))
        if answer.length is None:
            raise Unreachable(f"{self.name}: head {key!r}: the answer has no length", key=key)
        return ObjectInfo(
            key, answer.length, _mtime_ns(answer), _etag(answer), from_azure(answer.headers)
        )

    def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        """Return the range, fewer bytes where the blob ends, and none where it has ended."""
        answer = self.range(key, start, stop, etag)
        if answer.status == ranges.BEHIND_THE_END:
            return b""
        return ranges.bytes_of(answer, start, stop, f"{self.name}: get {key!r}", key)

    def range(self, key: str, start: int, stop: int, etag: str | None) -> Answer:
        """Return the answer to a ranged GET, also one that there is nothing."""
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        headers |= {} if etag is None else {"If-Match": f'"{etag}"'}
        call = Call(
            verb="get",
            method="GET",
            key=key,
            headers=headers,
            limit=max(stop - start, ERROR_MAX),
            fine=(ranges.BEHIND_THE_END,),
            precondition=Replaced,
        )
        return self._client.asked(call)

    def put(
        self, key: str, outgoing: Outgoing, metadata: Mapping[str, str], *, if_absent: bool
    ) -> ObjectInfo:
        condition = _condition(if_absent=if_absent)
        call = _put(key, outgoing, outgoing.content_md5, {**to_azure(metadata), **condition})
        answer = self._client.asked(call)
        told = answer.headers.get("content-md5", outgoing.content_md5)
        if told != outgoing.content_md5:
            why = f"the store has bytes of MD5 {brief(told)}, not {outgoing.content_md5}"
            raise NotAsSent(f"{self.name}: put {key!r}: {why}", key=key, is_stored=True)
        kept = from_azure(to_azure(metadata))
        return ObjectInfo(key, len(outgoing.body), _mtime_ns(answer), _etag(answer), kept)

    def put_damaged(self, key: str) -> None:
        """Store a body with the MD5 of another."""
        arrived, sent = Outgoing(b"as it arrived"), Outgoing(b"as it was sent")
        self._client.asked(_put(key, arrived, sent.content_md5))

    def copy(self, source: str, target: str, metadata: Mapping[str, str] | None) -> None:
        """Copy, and wait for the end where the store goes on behind its answer."""
        headers = {"x-ms-copy-source": self._client.url(source), **to_azure(metadata or {})}
        call = Call(
            verb="copy", method="PUT", key=target, headers=headers, wait=MOVE_WITHIN, source=source
        )
        answer = self._copy_begun(call, source)
        until, pause = time.monotonic() + COPIED_WITHIN, ASK_AGAIN[0]
        while (state := answer.headers.get("x-ms-copy-status", "success")) == "pending":
            if time.monotonic() > until:
                raise Unreachable(f"{self.name}: copy {source!r}: still going on", key=source)
            time.sleep(pause)
            pause = min(2 * pause, ASK_AGAIN[1])
            answer = self._client.asked(Call(verb="copy", method="HEAD", key=target))
        if state != "success":
            raise StoreError(f"{self.name}: copy {source!r}: it has {state}", key=source)
        if metadata is not None and not metadata:
            self.set_metadata(target, metadata)  # without any, a copy takes the source's

    def _copy_begun(self, call: Call, source: str) -> Answer:
        try:
            return self._client.asked(call)
        except StoreError as error:
            if not isinstance(error, (Unreachable, NotFound)):
                self.head(source)  # what is missing is not always said to be missing
            raise

    def set_metadata(self, key: str, metadata: Mapping[str, str]) -> None:
        headers = to_azure(metadata)
        query = "comp=metadata"
        self._client.asked(Call(verb="copy", method="PUT", key=key, query=query, headers=headers))

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        """Delete, in one request where the account can; an absent key counts as deleted."""
        answers = self._delete_batch(keys) if len(keys) > 1 and self._deletes_batches else None
        if answers is None:
            answers = [self._client.ask(_delete(key)) for key in keys]
        failed: dict[str, Exception] = {}
        for key, answer in zip(keys, answers, strict=True):
            if answer.is_fine:
                continue
            error = self._client.error(answer, _delete(key))
            if isinstance(error, NotFound) and error.key is None:
                raise error  # the container is gone
            if not isinstance(error, NotFound):
                failed[key] = error
        return failed

    def delete_version(self, key: str, etag: str) -> None:
        """Delete a blob, or raise `Replaced`; `NotFound` where there is none."""
        headers = {"If-Match": f'"{etag}"'}
        call = Call(verb="delete", method="DELETE", key=key, headers=headers, precondition=Replaced)
        self._client.asked(call)

    def page(
        self, prefix: str, delimiter: str, *, after: str, token: str | None, limit: int
    ) -> Page:
        """Return a page; behind `after` by filtering where the store cannot start there."""
        marker, behind = azure_listing.resumed(token, after)
        query = azure_listing.query(prefix, delimiter, marker, limit)
        starts = bool(behind and not marker and self._starts_at_keys)
        headers = {"x-ms-version": START_VERSION} if starts else {}
        query += f"&startFrom={quote(behind, safe='')}" if starts else ""
        call = Call(verb="page", method="GET", query=query, headers=headers, wait=LIST_WITHIN)
        answer = self._client.ask(call)
        if starts and answer.status == 400 and code_of(answer) == "InvalidHeaderValue":
            self._starts_at_keys = False
            return self.page(prefix, delimiter, after=after, token=token, limit=limit)
        if not answer.is_fine:
            raise self._client.error(answer, call)
        return azure_listing.page(answer.body, behind, f"{self.name}: page {prefix!r}")

    def check(self) -> None:
        """Return when the container is there and may be listed."""
        query = azure_listing.query("", "", "", 1)
        self._client.asked(Call(verb="check", method="GET", query=query, wait=LIST_WITHIN))

    def account(self) -> Answer:
        """Return what the store says of the account, which it need not."""
        query = "restype=account&comp=properties"
        return self._client.ask(Call(verb="check", method="GET", query=query))

    def stage(self, key: str, block: str, outgoing: Outgoing) -> None:
        """Keep a body as a block of `key` until it is committed."""
        call = Call(
            verb="put_part",
            method="PUT",
            key=key,
            query=f"comp=block&blockid={quote(block, safe='')}",
            headers={"Content-MD5": outgoing.content_md5},
            body=PieceByPiece(outgoing.body),
        )
        self._client.asked(call)

    def commit(
        self, key: str, blocks: Sequence[str], metadata: Mapping[str, str], *, if_absent: bool
    ) -> None:
        """Make the blob of blocks that are staged, or that it has already."""
        listed = "".join(f"<Latest>{block}</Latest>" for block in blocks)
        text = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'
        call = Call(
            verb="commit_upload",
            method="PUT",
            key=key,
            query="comp=blocklist",
            headers={
                "x-ms-blob-content-type": "application/octet-stream",
                **to_azure(metadata),
                **_condition(if_absent=if_absent),
            },
            body=text.encode(),
            wait=MOVE_WITHIN,
        )
        self._client.asked(call)

    def _delete_batch(self, keys: Sequence[str]) -> list[Answer] | None:
        """Return an answer for each key; None where there are no batches."""
        call = Call(verb="delete", method="POST", query="comp=batch")
        batch = batch_of("DELETE", [self._client.target(key) for key in keys])
        answer = self._client.batch(call, batch)
        if answer.status in _NO_BATCH and code_of(answer) != "ContainerNotFound":
            self._deletes_batches = False
            return None
        if not answer.is_fine:
            raise self._client.error(answer, call)
        return answers_in(answer, len(keys), f"{self.name}: delete")


def _put(
    key: str, outgoing: Outgoing, content_md5: str, headers: Mapping[str, str] = NO_METADATA
) -> Call:
    fixed = {
        "x-ms-blob-type": "BlockBlob",
        "Content-Type": "application/octet-stream",
        "Content-MD5": content_md5,
    }
    body = PieceByPiece(outgoing.body)
    return Call(verb="put", method="PUT", key=key, headers={**fixed, **headers}, body=body)


def _delete(key: str) -> Call:
    return Call(verb="delete", method="DELETE", key=key)


def _condition(*, if_absent: bool) -> dict[str, str]:
    return {"If-None-Match": "*"} if if_absent else {}


def _etag(answer: Answer) -> str:
    return answer.headers.get("etag", "").strip('"')


def _mtime_ns(answer: Answer) -> int:
    return http_date_ns(answer.headers.get("last-modified", ""))

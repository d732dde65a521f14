"""S3 and what speaks its protocol: here what is rare, by botocore; what is frequent lies beside.

The requests that botocore makes carry no checksums but those that S3 requires, because half of the
other stores refuse them. botocore does not retry: `retry.py` does.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any

from botocore.exceptions import ClientError

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import Credentials
from backgate.gateway.endpoints import endpoint_of
from backgate.gateway.errors import (
    ConfigError,
    Denied,
    NotFound,
    Refused,
    Replaced,
    StoreError,
    Unreachable,
    Unsupported,
)
from backgate.gateway.provider import (
    NO_METADATA,
    ObjectInfo,
    Page,
    PendingUpload,
    Provider,
)
from backgate.gateway.providers.checksums import Outgoing, Sender
from backgate.gateway.providers.s3_client import (
    Clients,
    Connection,
    authorities,
    keys_of,
)
from backgate.gateway.providers.s3_errors import (
    code_of,
    headers_of,
    status_of,
    translated,
    translation,
)
from backgate.gateway.providers.s3_listing import etag_from
from backgate.gateway.providers.s3_metadata import to_headers
from backgate.gateway.providers.s3_read import S3Reader, http_date_ns
from backgate.gateway.providers.s3_requests import Requests
from backgate.gateway.providers.s3_write import KINDS, S3Writer, listed_part, part_tag
from backgate.gateway.units import SECOND_NS

UPLOADS_MAX = 100_000  # pending at once; more is an endless answer, or a lost cause

_NO_BATCH_DELETE = {400, 405, 411, 501}  # what stores answer that do not know or like DeleteObjects
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")  # what botocore lets pass; it stands in URLs
_CONTROLS = {chr(code) for code in range(32)} | {"\ufffe", "\uffff"}  # no XML document holds them


class S3(Sender):
    """A bucket."""

    def __init__(self, connection: Connection) -> None:
        self.name = f"s3://{connection.bucket}"
        self.abilities = connection.profile.abilities()
        self._connection, self._bucket = connection, connection.bucket
        self._clients = Clients(connection)
        self._requests = Requests(connection, keys_of(connection.credentials), self.name)
        self._reader = S3Reader(connection, self._requests)
        self._writer = S3Writer(self._requests, connection.profile)
        self.checksums = tuple(dict.fromkeys((self._writer.kind, *KINDS)))
        self._passing = frozenset(connection.profile.retry_codes)
        self._deletes_batches = connection.profile.delete_integrity != "single"

    def check(self) -> None:
        try:
            headers = self._reader.check()
        except StoreError as error:
            if isinstance(error.__cause__, ClientError):
                self._compare_clocks(headers_of(error.__cause__))
            if not isinstance(error, Refused):
                raise
            self._ask_why()
            return
        self._compare_clocks(headers)

    def head(self, key: str) -> ObjectInfo:
        return self._reader.head(key)

    def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        return self._reader.get(key, start, stop, etag)

    def page(
        self,
        prefix: str = "",
        delimiter: str = "",
        *,
        after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> Page:
        return self._reader.page(prefix, delimiter, after=after, token=token, limit=limit)

    def send(
        self, key: str, outgoing: Outgoing, metadata: Mapping[str, str], *, if_absent: bool
    ) -> ObjectInfo:
        size = len(outgoing.body)
        self.refuse_what_it_cannot_hold(key, size, metadata, if_absent=if_absent)
        headers = self._headers(metadata, key)
        mtime_ns, etag = self._writer.put(key, outgoing, headers, if_absent=if_absent)
        lower = {name.lower(): text for name, text in metadata.items()}
        return ObjectInfo(key, size, mtime_ns, etag, lower)

    def put_damaged(self, key: str, checksum: str) -> None:
        self._writer.put_damaged(key, checksum)

    def copy(
        self, source: str, target: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        if not self.abilities.copies_objects:
            raise Unsupported(f"{self.name}: copy {source!r}: the store cannot", key=source)
        if source.endswith("/") and not self.abilities.markers_are_objects:
            self.head(source)
            return self.put(target, b"", metadata or NO_METADATA)
        self.refuse_what_it_cannot_hold(target, 0, metadata)
        replaced: dict[str, Any] = {"MetadataDirective": "COPY"}
        if metadata is not None:
            headers = self._headers(metadata, target)
            replaced = {"MetadataDirective": "REPLACE", "Metadata": headers}
        with self._translated("copy", source):
            self._clients.moving.copy_object(
                Bucket=self._bucket, Key=target, CopySource=self._source(source), **replaced
            )
        return self.head(target)

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        speakable = [key for key in keys if _CONTROLS.isdisjoint(key)]
        others = [key for key in keys if not _CONTROLS.isdisjoint(key)]
        if not self._deletes_batches or len(speakable) < 2:
            return self._delete_one_by_one(keys)
        listed = {"Objects": [{"Key": key} for key in speakable], "Quiet": True}
        try:
            with self._translated("delete"):
                answer = self._clients.moving.delete_objects(Bucket=self._bucket, Delete=listed)
        except StoreError as error:
            cause = error.__cause__
            passes = isinstance(error, (Unreachable, Refused))  # and is no word about batches
            status = status_of(cause) if isinstance(cause, ClientError) else 0
            if passes or status not in _NO_BATCH_DELETE:
                raise
            self._deletes_batches = False
            return self._delete_one_by_one(keys)
        errors = answer.get("Errors", ())
        failed = {one.get("Key", ""): self._delete_error(one) for one in errors}
        if not failed.keys() <= set(speakable):
            raise StoreError(f"{self.name}: delete: {min(failed)!r} failed, which nobody named")
        known = {key: error for key, error in failed.items() if not isinstance(error, NotFound)}
        return known | self._delete_one_by_one(others)

    def delete_version(self, key: str, etag: str) -> None:
        if not self.abilities.conditional_delete:
            super().delete_version(key, etag)
        try:
            self._writer.delete(key, etag)
        except NotFound as error:
            if error.key is None:
                raise  # it is the bucket that is not there
        except Replaced:
            with suppress(NotFound):  # of no version of it, if it is not there
                found = self.head(key)
                if not (self._reader.has_weak_etags and found.etag == etag):
                    raise
                self._writer.delete(key)  # no condition on a weak etag ever holds

    def begin_upload(self, key: str, metadata: Mapping[str, str] = NO_METADATA) -> str:
        self.refuse_what_it_cannot_hold(key, 0, metadata)
        summed = {"ChecksumAlgorithm": "CRC32C"} if self._writer.kind == "crc32c" else {}
        with self._translated("begin_upload", key):
            answer = self._clients.quick.create_multipart_upload(
                Bucket=self._bucket, Key=key, Metadata=self._headers(metadata, key), **summed
            )
        return str(answer["UploadId"])

    def send_part(self, key: str, upload: str, number: int, outgoing: Outgoing) -> str:
        with self._of_upload("put_part", key, upload):
            return self._writer.put_part(key, upload, number, outgoing)

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
        if not self.abilities.copies_parts:
            raise Unsupported(f"{self.name}: copy_part {key!r}: the store cannot", key=key)
        is_exact = etag is not None and not self._reader.has_weak_etags
        condition = {"CopySourceIfMatch": f'"{etag}"'} if is_exact else {}
        try:
            with translated(
                self.name, "copy_part", source, precondition=Replaced, passing=self._passing
            ):
                answer = self._clients.moving.upload_part_copy(
                    Bucket=self._bucket,
                    Key=key,
                    UploadId=upload,
                    PartNumber=number,
                    CopySource=self._source(source),
                    CopySourceRange=f"bytes={start}-{stop - 1}",
                    **condition,
                )
        except Replaced:
            if not is_exact or not self._reader.matches_weakly(source, etag):
                raise
            return self.copy_part(key, upload, number, source, start, stop, etag)
        except Unreachable as error:
            if isinstance(error.__cause__, ClientError) and status_of(error.__cause__) == 404:
                self.head(source)  # whose words tell whether it is not there
            raise
        made = answer.get("CopyPartResult", {})
        made_etag = self._etag(made, key)
        # Stores ignore conditions. The MD5 of a whole object tells of its version all the same.
        is_sure = etag is None or (self._connection.profile.etag_md5 and made_etag == etag)
        if not is_sure and self.head(source).etag != etag:
            raise Replaced(f"{self.name}: copy_part {source!r}: another version now", key=source)
        has_sum = self._writer.kind == "crc32c"
        return part_tag(made_etag, made.get("ChecksumCRC32C", "") if has_sum else "")

    def commit_upload(
        self, key: str, upload: str, parts: Sequence[tuple[int, str]], *, if_absent: bool = False
    ) -> ObjectInfo:
        self.refuse_what_it_cannot_hold(key, if_absent=if_absent)
        listed = [listed_part(number, tag) for number, tag in parts]
        with self._of_upload("commit_upload", key, upload):
            self._clients.moving.complete_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": listed},
                **_condition(if_absent=if_absent),
            )
        return self.head(key)

    def abort_upload(self, key: str, upload: str) -> None:
        try:
            with self._translated("abort_upload", key):
                self._clients.quick.abort_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=upload
                )
        except NotFound as error:
            if (
                isinstance(error.__cause__, ClientError)
                and code_of(error.__cause__) == "NoSuchBucket"
            ):
                raise

    def uploads(self, prefix: str = "") -> Sequence[PendingUpload]:
        found: list[PendingUpload] = []
        with self._translated("uploads"):
            pages = self._clients.quick.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
                for one in page.get("Uploads", ()):
                    begun = one.get("Initiated")
                    begun_ns = 0 if begun is None else int(begun.timestamp()) * SECOND_NS
                    found.append(PendingUpload(one["Key"], one["UploadId"], begun_ns))
                if len(found) > UPLOADS_MAX:
                    raise StoreError(f"{self.name}: more than {UPLOADS_MAX} pending uploads")
        return found

    def close(self) -> None:
        self._requests.close()
        self._clients.close()

    def _translated(self, verb: str, key: str | None = None) -> AbstractContextManager[None]:
        return translated(self.name, verb, key, passing=self._passing)

    def renew(self, credentials: Any) -> None:
        keys = keys_of(credentials)
        self._connection = replace(self._connection, credentials=credentials)
        self._clients = Clients(self._connection)  # requests under way keep the old ones
        self._requests.renew(keys)

    def unguarded(self) -> "S3":
        return S3(replace(self._connection, profile=self._connection.profile.presuming_all()))

    def learnt(self) -> Mapping[str, Any]:
        """Return how deletes and puts have to be made, if that is not what the profile says."""
        given = self._connection.profile.delete_integrity
        is_single = not self._deletes_batches and given != "single"
        single = {"delete_integrity": "single"} if is_single else {}
        return single | ({"upload_checksum": "md5"} if self._writer.is_asked_for_md5 else {})

    @contextmanager
    def _of_upload(self, verb: str, key: str, upload: str) -> Iterator[None]:
        """As `_translated`; where the store answers 500, it is asked whether the upload is there.

        Ceph 16 answers so, and waiting for an upload that is gone helps nobody.
        """
        try:
            with self._translated(verb, key):
                yield
        except Unreachable as error:
            if isinstance(error.__cause__, ClientError) and status_of(error.__cause__) == 500:
                with self._translated(verb, key):
                    self._clients.quick.list_parts(
                        Bucket=self._bucket, Key=key, UploadId=upload, MaxParts=1
                    )
            raise

    def _ask_why(self) -> None:
        """Raise for a bucket that refuses a HEAD, whose answer has no words, what it says then."""
        try:
            self._reader.page("", "", after="", token=None, limit=1)
        except Denied as error:
            why = "these credentials may not list the bucket: allow s3:ListBucket"
            raise Denied(f"{self.name}: check: {why} ({error})") from error

    def _headers(self, metadata: Mapping[str, str], key: str) -> dict[str, str]:
        return to_headers(metadata, self.abilities.limits.metadata_max, self.name, key)

    def _compare_clocks(self, headers: Mapping[str, str]) -> None:
        lower = {name.lower(): text for name, text in headers.items()}
        if told_ns := http_date_ns(lower.get("date", "")):
            self.clock_skew = told_ns / SECOND_NS - time.time()

    def _etag(self, answer: Mapping[str, Any], key: str) -> str:
        etag = etag_from(str(answer.get("ETag", "")))
        if not etag:
            raise StoreError(f"{self.name}: {key!r}: the answer has no etag", key=key)
        return etag

    def _source(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": key}

    def _delete_one_by_one(self, keys: Sequence[str]) -> dict[str, Exception]:
        failed: dict[str, Exception] = {}
        for number, key in enumerate(keys):
            try:
                self._writer.delete(key)
            except NotFound as error:
                if error.key is None:
                    raise  # it is the bucket that is not there
            except StoreError as error:
                failed[key] = error
                if not isinstance(error.__cause__, ClientError):
                    return failed | dict.fromkeys(keys[number:], error)  # nobody answers
        return failed

    def _delete_error(self, entry: Mapping[str, str]) -> StoreError:
        """Our error for one entry of a DeleteObjects answer, whose statuses are left out."""
        code = entry.get("Code", "")
        status = 503 if code in ("InternalError", "ServiceUnavailable") else 0
        answer: Any = {"Error": entry, "ResponseMetadata": {"HTTPStatusCode": status}}
        error = ClientError(answer, "DeleteObjects")
        key = entry.get("Key", "")
        return translation(error, f"{self.name}: delete {key!r}", key, passing=self._passing)


def _condition(*, if_absent: bool) -> dict[str, str]:
    return {"IfNoneMatch": "*"} if if_absent else {}


def open_url(config: RepositoryConfig, credentials: Credentials | None) -> tuple[Provider, str]:
    """Return the bucket and the prefix of `s3://bucket/prefix`; raises `ConfigError`."""
    bucket, _, path = config.url.partition("://")[2].partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(f"{config.origin}: url: {bucket!r} cannot be a bucket's name")
    endpoint = endpoint_of(config)
    connection = Connection(
        bucket=bucket,
        endpoint_url=endpoint.url,
        region=endpoint.region,
        profile=endpoint.profile,
        credentials=credentials,
        ca_bundle=authorities(config.ca_bundle, config.origin),
    )
    path = path.strip("/")
    return S3(connection), f"{path}/" if path else ""

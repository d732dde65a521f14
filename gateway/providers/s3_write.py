"""Put, put of a part and delete of S3, as signed requests: what many small files cost.

A PUT through botocore's client costs two to three times the CPU. With each body goes what the
profile says that the store checks: its CRC-32C, its SHA-256 in the signature, or else its MD5. What
the store answers is compared. An MD5 goes along as long as a store has not shown that it knows
CRC-32C, and where it asks for one.
"""

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from backgate.gateway.errors import NotAsSent, Replaced, StoreError
from backgate.gateway.profiles import Profile
from backgate.gateway.provider import NO_METADATA
from backgate.gateway.providers.checksums import CRC32C_IS_FAST, Outgoing
from backgate.gateway.providers.s3_errors import asks_for_md5
from backgate.gateway.providers.s3_listing import etag_from
from backgate.gateway.providers.s3_read import USER_METADATA, http_date_ns
from backgate.gateway.providers.s3_requests import Question, Requests
from backgate.gateway.units import SECOND_NS

KINDS = ("crc32c", "sha256", "md5")  # of checksums, that a body can be sent with

_CRC32C = "x-amz-checksum-crc32c"
_ENCRYPTION = "x-amz-server-side-encryption"  # what headers begin with that tell of any
_MD5 = re.compile("[0-9a-f]{32}")
_SHOWN = 40  # characters of the store's own words in a message


class S3Writer:
    """The writing verbs of one bucket whose answers are short; any number of threads may call."""

    def __init__(self, requests: Requests, profile: Profile) -> None:
        self._requests, self._name = requests, requests.name
        is_slow = profile.upload_checksum == "crc32c" and not CRC32C_IS_FAST
        self.kind = "md5" if is_slow else profile.upload_checksum
        self._etags_are_md5 = profile.etag_md5
        self.is_asked_for_md5 = False
        self._knows_crc32c: dict[str, bool] = {}  # verb -> whether its answers tell of it

    def put(
        self, key: str, outgoing: Outgoing, metadata: Mapping[str, str], *, if_absent: bool
    ) -> tuple[int, str]:
        """Store a body, metadata as headers carry it; return when (nanoseconds) and the etag."""
        headers = {USER_METADATA + name: text for name, text in metadata.items()}
        if if_absent:
            headers["If-None-Match"] = "*"
        answer = self._sent("put", self._requests.url_of(key), key, outgoing, headers)
        mtime_ns = http_date_ns(answer.get("date", "")) or int(time.time()) * SECOND_NS
        return mtime_ns, self._etag(answer, key)

    def put_part(self, key: str, upload: str, number: int, outgoing: Outgoing) -> str:
        """Store a part; return its etag, and behind a blank the CRC-32C that the store tells."""
        query = f"partNumber={number}&uploadId={quote(upload, safe='-_.~')}"
        url = f"{self._requests.url_of(key)}?{query}"
        answer = self._sent("put_part", url, key, outgoing)
        told = answer.get(_CRC32C, "").strip() if self.kind == "crc32c" else ""
        return part_tag(self._etag(answer, key), told)

    def put_damaged(self, key: str, checksum: str) -> None:
        """Store a body with the `checksum` of another, and no other that the store might check."""
        body, other = b"as it arrived", Outgoing(b"as it was sent")
        sums = {"crc32c": {_CRC32C: other.crc32c}, "md5": {"Content-MD5": other.content_md5}}
        digest = other.sha256 if checksum == "sha256" else ""
        url, headers = self._requests.url_of(key), sums.get(checksum, {})
        self._requests.told(Question("put", "PUT", url, key, headers, body, digest=digest))

    def delete(self, key: str, etag: str | None = None) -> None:
        """Delete an object; with `etag`, raises `Replaced` when it is another version."""
        headers = {} if etag is None else {"If-Match": f'"{etag}"'}
        url = self._requests.url_of(key)
        self._requests.told(Question("delete", "DELETE", url, key, headers, precondition=Replaced))

    def _sent(
        self,
        verb: str,
        url: str,
        key: str,
        outgoing: Outgoing,
        headers: Mapping[str, str] = NO_METADATA,
    ) -> Mapping[str, str]:
        """PUT a body, and return the headers of an answer that vouches for it."""
        has_md5 = self._sends_md5(verb)
        sums = {"Content-MD5": outgoing.content_md5} if has_md5 else {}
        if self.kind == "crc32c":
            sums[_CRC32C] = outgoing.crc32c
        digest = outgoing.sha256 if self._requests.signs_bodies else ""
        given = {**headers, **sums}
        try:
            answer = self._requests.told(
                Question(verb, "PUT", url, key, given, outgoing.body, digest=digest)
            )
        except StoreError as error:
            if has_md5 or not asks_for_md5(error):
                raise
            self.is_asked_for_md5 = True
            return self._sent(verb, url, key, outgoing, headers)
        if fault := self._fault(verb, answer, outgoing, has_md5=has_md5):
            raise NotAsSent(f"{self._name}: {verb} {key!r}: {fault}", key=key, is_stored=True)
        return answer

    def _sends_md5(self, verb: str) -> bool:
        if self.kind == "md5" or self.is_asked_for_md5:
            return True
        return self.kind == "crc32c" and not self._knows_crc32c.get(verb, False)

    def _fault(
        self, verb: str, answer: Mapping[str, str], outgoing: Outgoing, *, has_md5: bool
    ) -> str:
        """Return why the answer does not vouch for the body; "" when it does."""
        if self.kind == "crc32c" and len(outgoing.body):  # of nothing, not all stores tell one
            told = answer.get(_CRC32C, "").strip()
            if self._knows_crc32c.setdefault(verb, bool(told)) and not told:
                self._knows_crc32c[verb] = False  # for good: the next attempt takes an MD5 along
            if not told and not has_md5:
                return "the store no longer tells what it has"
            if told and told != outgoing.crc32c:
                return f"the store has bytes of CRC-32C {told[:_SHOWN]}, not {outgoing.crc32c}"
        etag = etag_from(answer.get("etag", ""))
        is_plain = not any(name.startswith(_ENCRYPTION) for name in answer)
        is_md5 = self._etags_are_md5 and is_plain and _MD5.fullmatch(etag) is not None
        if has_md5 and is_md5 and etag != outgoing.md5.hex():
            return f"the store has bytes of MD5 {etag}, not {outgoing.md5.hex()}"
        return ""

    def _etag(self, answer: Mapping[str, str], key: str) -> str:
        etag = etag_from(answer.get("etag", ""))
        if not etag:
            raise StoreError(f"{self._name}: {key!r}: the answer has no etag", key=key)
        return etag


def part_tag(etag: str, crc32c: str) -> str:
    """Return what names a part: its etag, and behind a blank the CRC-32C that it has."""
    return f"{etag} {crc32c}" if crc32c else etag


def listed_part(number: int, tag: str) -> dict[str, Any]:
    """Return a part as a commit lists it."""
    etag, _, crc32c = tag.partition(" ")
    listed = {"PartNumber": number, "ETag": f'"{etag}"'}
    return listed | ({"ChecksumCRC32C": crc32c} if crc32c else {})

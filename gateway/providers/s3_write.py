"""Put, put of a part and delete of S3, as signed requests: what many small files cost.

A PUT through botocore's client costs two to three times the CPU. Every body goes with a
Content-MD5, which all stores check; checksums of other kinds half of them refuse.
"""

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from backgate.gateway.errors import StoreError
from backgate.gateway.provider import NO_METADATA, Body
from backgate.gateway.providers.s3_client import content_md5
from backgate.gateway.providers.s3_listing import etag_from
from backgate.gateway.providers.s3_read import USER_METADATA, http_date_ns
from backgate.gateway.providers.s3_requests import ERROR_MAX, Question, Requests, bounded
from backgate.gateway.units import SECOND_NS


class S3Writer:
    """The writing verbs of one bucket whose answers are short; any number of threads may call."""

    def __init__(self, requests: Requests) -> None:
        self._requests, self._name = requests, requests.name

    def put(
        self, key: str, body: Body, metadata: Mapping[str, str], *, if_absent: bool
    ) -> tuple[int, str]:
        """Store `body`, metadata as headers carry it; return when (nanoseconds) and the etag."""
        headers = {USER_METADATA + name: text for name, text in metadata.items()}
        if if_absent:
            headers["If-None-Match"] = "*"
        answer = self._sent("put", self._requests.url_of(key), key, body, headers)
        mtime_ns = http_date_ns(answer.get("date", "")) or int(time.time()) * SECOND_NS
        return mtime_ns, self._etag(answer, key)

    def put_part(self, key: str, upload: str, number: int, body: Body) -> str:
        query = f"partNumber={number}&uploadId={quote(upload, safe='-_.~')}"
        url = f"{self._requests.url_of(key)}?{query}"
        return self._etag(self._sent("put_part", url, key, body), key)

    def delete(self, key: str) -> None:
        question = Question("delete", "DELETE", self._requests.url_of(key), key)
        with self._requests.asked(question) as response:
            bounded(response, ERROR_MAX)

    def _sent(
        self, verb: str, url: str, key: str, body: Body, headers: Mapping[str, str] = NO_METADATA
    ) -> Mapping[str, Any]:
        """PUT a body, and return the headers of the answer, their names in lower case."""
        headers = {**headers, "Content-MD5": content_md5(body)}
        question = Question(verb, "PUT", url, key, headers, body)
        with self._requests.asked(question) as response:
            bounded(response, ERROR_MAX)
            return {name.lower(): text for name, text in response.headers.items()}

    def _etag(self, answer: Mapping[str, Any], key: str) -> str:
        etag = etag_from(str(answer.get("etag", "")))
        if not etag:
            raise StoreError(f"{self._name}: {key!r}: the answer has no etag", key=key)
        return etag

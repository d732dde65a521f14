"""Requests to one bucket, signed by hand: those of which there are many.

A request through botocore's client costs two to three times the CPU, most of it in serialisers and
event hooks. Signing, connections and the parsing of errors are botocore's.
"""

import hashlib
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError, NoCredentialsError
from botocore.httpsession import URLLib3Session
from botocore.parsers import create_parser
from botocore.utils import get_environ_proxies

from backgate.gateway import threads
from backgate.gateway.errors import AlreadyThere, StoreError
from backgate.gateway.provider import Body
from backgate.gateway.providers.s3_body import SLOWEST, START, as_sent
from backgate.gateway.providers.s3_client import ANSWER_WITHIN, CONNECT_WITHIN, Connection
from backgate.gateway.providers.s3_errors import translated
from backgate.gateway.units import KIB, MIB

LIST_WITHIN = 60  # seconds without a byte; a slow store may think that long about a page
ERROR_MAX = 64 * KIB  # bytes of an answer that says no

_Session: Any = URLLib3Session  # its stub knows neither a file to verify with nor two time-outs
# Headers and body are two writes: without this the second waits 40 ms for an acknowledgement.
_AT_ONCE = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,80})</Code>")
_FINE = frozenset((200, 204, 206))


@dataclass(frozen=True, slots=True)
class Question:
    """One request: what is asked, of what, and what a failed condition means."""

    verb: str  # what messages call it
    method: str
    url: str
    key: str | None = None  # that messages name
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = field(default=b"", repr=False)
    precondition: type[StoreError] = AlreadyThere  # what a 412 means
    expected: int = 4 * MIB  # bytes of the answer, for how long it may take
    is_listing: bool = False  # the store may think about it for longer
    digest: str = ""  # SHA-256 of the body, for the signature; empty: whatever the connection needs


class Requests:
    """The signed requests of one bucket; any number of threads may make them."""

    def __init__(self, connection: Connection, keys: Any, name: str) -> None:
        self.name = name
        self.url = connection.bucket_url
        self._keys, self._region = keys, connection.region
        self._passing = frozenset(connection.profile.retry_codes)
        self._is_encrypted = connection.is_encrypted
        checks_signatures = connection.profile.upload_checksum == "sha256"
        self.signs_bodies = checks_signatures or not connection.is_encrypted
        self._expects = connection.profile.expect_100
        self._parser: Any = create_parser("rest-xml")
        session = partial(
            _Session,
            verify=connection.ca_bundle or True,
            proxies=get_environ_proxies(connection.endpoint_url),
            socket_options=_AT_ONCE,
        )
        self._objects = session(
            timeout=(CONNECT_WITHIN, ANSWER_WITHIN), max_pool_connections=threads.CONNECTIONS
        )
        self._listings = session(
            timeout=(CONNECT_WITHIN, LIST_WITHIN), max_pool_connections=threads.METADATA_THREADS
        )

    def url_of(self, key: str) -> str:
        """Return the URL of an object."""
        return self.url + quote(key, safe="/-_.~")

    @contextmanager
    def asked(self, question: Question) -> Iterator[Any]:
        """Send a request and give its answer, whose body is unread; an error is raised as ours."""
        with translated(
            self.name,
            question.verb,
            question.key,
            precondition=question.precondition,
            passing=self._passing,
        ):
            request = self._signed(question).prepare()
            request.stream_output = True
            http = self._listings if question.is_listing else self._objects
            response = http.send(request)
            try:
                limit = START + question.expected / SLOWEST
                with threads.deadline(limit, partial(_break_off, response.raw)):
                    if response.status_code not in _FINE:
                        self._refuse(response, question.verb)
                    yield response
            finally:
                _release(response.raw)

    def renew(self, keys: Any) -> None:
        """Sign with other keys from now on."""
        self._keys = keys

    def close(self) -> None:
        self._objects.close()
        self._listings.close()

    def _signed(self, question: Question) -> AWSRequest:
        if self._keys is None:
            raise NoCredentialsError
        headers = {**question.headers, "User-Agent": "backgate"}
        if self._expects and question.body:
            headers["Expect"] = "100-continue"
        request = AWSRequest(
            question.method, question.url, headers=headers, data=as_sent(question.body)
        )
        keys = self._keys.get_frozen_credentials()
        _Signer(keys, self._region, self._payload(question)).add_auth(request)
        return request

    def _payload(self, question: Question) -> str:
        """What the signature says of the body: its hash, or nothing, which others vouch for."""
        if question.digest or not self._is_encrypted:
            return question.digest or hashlib.sha256(question.body).hexdigest()
        return "UNSIGNED-PAYLOAD"

    def _refuse(self, response: Any, verb: str) -> None:
        answer = {
            "status_code": response.status_code,
            "headers": response.headers,
            "body": bounded(response, ERROR_MAX),
        }
        parsed = self._parser.parse(answer, None)
        if code := _CODE.search(answer["body"]):  # also where a key that it quotes is no XML
            parsed["Error"]["Code"] = code[1].decode()
        raise ClientError(parsed, verb)


class _Signer(S3SigV4Auth):
    """Signs for a body of which it is told the hash."""

    def __init__(self, keys: Any, region: str, payload: str) -> None:
        super().__init__(keys, "s3", region)
        self._payload = payload

    def payload(self, request: AWSRequest) -> str:
        return self._payload


def _break_off(raw: Any) -> None:
    """End the reading of an answer in another thread: what comes byte by byte never times out."""
    with (
        suppress(OSError, ValueError),  # it has ended by itself
        socket.socket(fileno=os.dup(raw.fileno())) as connection,
    ):
        connection.shutdown(socket.SHUT_RDWR)


def _release(raw: Any) -> None:
    """Give a connection back to the pool if nothing of the body is left to read, else close it."""
    if raw.length_remaining == 0:
        raw.read()
    raw.close()


def bounded(response: Any, limit: int) -> bytes:
    """Read up to `limit` bytes of a body whose length nobody promised."""
    pieces, left = [], limit
    while left > 0 and (piece := response.raw.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)

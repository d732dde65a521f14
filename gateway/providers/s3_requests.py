"""Requests to one bucket, signed by hand: those of which there are many.

A request through botocore's client costs two to three times the CPU, most of it in serialisers and
event hooks. The parsing of errors is botocore's, and so are connections but those for what is short
(`s3_wire.py`).
"""

import hashlib
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ClientError, NoCredentialsError
from botocore.httpsession import URLLib3Session
from botocore.parsers import create_parser
from botocore.utils import get_environ_proxies

from backgate.gateway import threads
from backgate.gateway.errors import AlreadyThere, StoreError
from backgate.gateway.provider import Body
from backgate.gateway.providers.s3_body import PIECE, SLOWEST, START, as_sent
from backgate.gateway.providers.s3_client import ANSWER_WITHIN, CONNECT_WITHIN, Connection
from backgate.gateway.providers.s3_errors import translated
from backgate.gateway.providers.s3_signing import PAYLOAD, Signer
from backgate.gateway.providers.s3_wire import Message, Wire
from backgate.gateway.units import KIB, MIB

LIST_WITHIN = 60  # seconds without a byte; a slow store may think that long about a page
ERROR_MAX = 64 * KIB  # bytes of an answer that says no

_Session: Any = URLLib3Session  # its stub knows neither a file to verify with nor two time-outs
_Request: Any = AWSPreparedRequest  # nor that any mapping will do for headers
# Headers and body are two writes: without this the second waits 40 ms for an acknowledgement.
_AT_ONCE = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,80})</Code>")
_FINE = frozenset((200, 204, 206))
_BODILESS = frozenset(("GET", "HEAD"))


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
        self._keys, self._signer = keys, Signer(self.url, connection.region)
        self._passing = frozenset(connection.profile.retry_codes)
        profile = connection.profile
        is_of_use = not connection.is_encrypted and profile.payload_hash != "ignored"
        self.signs_bodies = is_of_use or profile.upload_checksum == "sha256"
        self._expects = profile.expect_100
        self._parser: Any = create_parser("rest-xml")
        proxies = get_environ_proxies(connection.endpoint_url)
        is_direct = urlsplit(self.url).scheme not in proxies
        wire = Wire(connection, self._signer.host, ANSWER_WITHIN)
        self._wire = wire if is_direct else None
        session = partial(
            _Session,
            verify=connection.ca_bundle or True,
            proxies=proxies,
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
            headers, body = self._headers(question), question.body
            sent = as_sent(body) if body else None
            request = _Request(question.method, question.url, headers, sent, stream_output=True)
            http = self._listings if question.is_listing else self._objects
            response = http.send(request)
            try:
                with _in_time(question, response.raw):
                    if response.status_code not in _FINE:
                        self._refuse(response, bounded(response, ERROR_MAX), question.verb)
                    yield response
            finally:
                _release(response.raw)

    def told(self, question: Question) -> Mapping[str, str]:
        """Send a request whose answer is in its headers; return them, names in lower case."""
        body = question.body
        if self._wire is None or len(body) > PIECE or (self._expects and body):
            with self.asked(question) as response:
                bounded(response, ERROR_MAX)
                return {name.lower(): text for name, text in response.headers.items()}
        with translated(
            self.name,
            question.verb,
            question.key,
            precondition=question.precondition,
            passing=self._passing,
        ):
            message = Message(question.method, question.url, self._headers(question), body)
            answer = self._wire.ask(message, partial(_in_time, question))
            if answer.status_code not in _FINE:
                self._refuse(answer, answer.body, question.verb)
            return answer.headers

    def renew(self, keys: Any) -> None:
        """Sign with other keys from now on."""
        self._keys = keys

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
        self._objects.close()
        self._listings.close()

    def _headers(self, question: Question) -> dict[str, str]:
        if self._keys is None:
            raise NoCredentialsError
        method, body = question.method, question.body
        given = {**question.headers, PAYLOAD: self._payload(question)}
        keys = self._keys.get_frozen_credentials()
        headers = self._signer.signed(method, question.url, given, keys)
        headers["User-Agent"] = "backgate"
        if method not in _BODILESS:
            headers["Content-Length"] = str(len(body))
        if self._expects and body:
            headers["Expect"] = "100-continue"
        return headers

    def _payload(self, question: Question) -> str:
        """What the signature says of the body: its hash, or nothing, which others vouch for."""
        if question.digest or self.signs_bodies:
            return question.digest or hashlib.sha256(question.body).hexdigest()
        return "UNSIGNED-PAYLOAD"

    def _refuse(self, response: Any, body: bytes, verb: str) -> None:
        answer = {"status_code": response.status_code, "headers": response.headers, "body": body}
        parsed = self._parser.parse(answer, None)
        if code := _CODE.search(body):  # also where a key that it quotes is no XML
            parsed["Error"]["Code"] = code[1].decode()
        raise ClientError(parsed, verb)


def _in_time(question: Question, raw: Any) -> AbstractContextManager[None]:
    """Break off what is read from `raw` when it takes too long for what is expected."""
    limit = START + question.expected / SLOWEST
    return threads.deadline(limit, partial(_break_off, raw))


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
    if response.raw.length_remaining == 0:
        return b""
    pieces, left = [], limit
    while left > 0 and (piece := response.raw.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)

"""HTTP for providers whose requests we send ourselves: pooled, bounded, each sent once.

Azure and Google sell SDKs that retry by themselves, copy each body and take five times the CPU for
a ranged GET. What is delicate, the signature or token that opens a store, is still theirs.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException, RemoteDisconnected
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, ProtocolError

from backgate.gateway import threads
from backgate.gateway.errors import StoreError, Unreachable
from backgate.gateway.providers.s3_listing import SIZE, storable
from backgate.gateway.units import MIB, SECOND_NS

CONNECT_WITHIN = 10  # seconds
ANSWER_WITHIN = 30  # seconds without a byte, for an object's bytes or attributes
LIST_WITHIN = 60  # seconds without a byte; a slow store may think that long about a page
MOVE_WITHIN = 600  # seconds; a store may copy gigabytes before the first byte of its answer
ANSWER_MAX = 32 * MIB  # bytes; a page of 5000 keys of 1024 bytes, all escaped, is 16 MiB
LONGEST = 300  # characters of a store's own words in a message

_HARMLESS = ("GET", "HEAD")  # asked twice, they are answered twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to send. `target` is quoted, and never shown: its query may hold a signature."""

    method: str
    target: str  # path and query
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None  # bytes, or a file that knows its length
    wait: float = ANSWER_WITHIN  # seconds without a byte of the answer
    limit: int = ANSWER_MAX  # bytes of the answer's body


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_fine(self) -> bool:
        return 200 <= self.status < 300

    @property
    def length(self) -> int | None:
        """The announced length; None if none was."""
        return size_from(self.headers.get("content-length", ""))

    @property
    def retry_after(self) -> float | None:
        """Seconds that the store asks to wait: a number, or a date."""
        text = self.headers.get("retry-after", "")
        if text.isascii() and text.isdigit():
            return float(text[:9])
        date_ns = http_date_ns(text)
        return max(0.0, date_ns / SECOND_NS - time.time()) if date_ns else None


class Web:
    """The connections to one endpoint; any number of threads may ask."""

    def __init__(self, endpoint_url: str, ca_bundle: str | None) -> None:
        parts = urlsplit(endpoint_url)
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.path = parts.path.rstrip("/")  # what each target begins with
        self.http = _pools(self.origin, ca_bundle)
        self._pool = self.http.connection_from_url(self.origin)

    def ask(self, request: Request, what: str, key: str | None = None) -> Answer:
        """Return the answer to `request`, whatever its status; `what` begins the messages.

        Raises `Unreachable` when there is none or it breaks off, `StoreError` for one that is too
        long or a certificate that is not trusted.
        """
        with translated(what, key):
            try:
                return self._sent(request, what, key)
            except ProtocolError as error:
                if request.method not in _HARMLESS or not _was_closed_before(error):
                    raise
                return self._sent(request, what, key)

    def _sent(self, request: Request, what: str, key: str | None) -> Answer:
        response = self._pool.urlopen(
            request.method,
            request.target,
            request.body,
            headers=_headers(request),
            timeout=urllib3.Timeout(connect=CONNECT_WITHIN, read=request.wait),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        try:
            headers = {name.lower(): text for name, text in response.headers.items()}
            body = _bounded(response, request.limit)
            if body is None:
                raise StoreError(f"{what}: more than {request.limit} bytes came", key=key)
            return Answer(response.status, headers, body)
        finally:
            response.close()  # back in the pool already if its body was read to the end

    def close(self) -> None:
        self._pool.close()
        self.http.clear()


@contextmanager
def translated(what: str, key: str | None = None) -> Iterator[None]:
    """Raise our error for whatever the sockets and what reads them raise inside."""
    try:
        yield
    except (HTTPError, HTTPException, OSError) as error:
        text = str(error)
        if "certificate verify failed" in text.lower().replace("_", " "):
            why = "the server's certificate is not trusted: set ca_bundle to its authority's file"
            raise StoreError(f"{what}: {why} ({brief(text)})", key=key) from error
        raise Unreachable(f"{what}: {brief(text) or type(error).__name__}", key=key) from error


def brief(text: str) -> str:
    """The store's words on one line and of bounded length: they are not ours."""
    line = " ".join(text.split()).strip(": ")
    return "".join(c for c in line[:LONGEST] if c.isprintable())


def size_from(text: str) -> int | None:
    """Return the number of bytes that `text` says; None if it is none that a database can hold."""
    return int(text) if SIZE.fullmatch(text) else None


def http_date_ns(text: str) -> int:
    """Return `Sun, 22 Nov 2026 14:05:28 GMT` in nanoseconds since 1970; 0 if it is no date."""
    try:
        return storable(int(parsedate_to_datetime(text).timestamp()) * SECOND_NS)
    except (ValueError, TypeError, OverflowError):
        return 0


def _pools(origin: str, ca_bundle: str | None) -> urllib3.PoolManager:
    parts = urlsplit(origin)
    settings: dict[str, Any] = {"maxsize": threads.CONNECTIONS, "ca_certs": ca_bundle}
    proxy = getproxies().get("https")
    if parts.scheme == "https" and proxy and not proxy_bypass(parts.hostname or ""):
        return urllib3.ProxyManager(proxy, **settings)
    return urllib3.PoolManager(**settings)


def _was_closed_before(error: ProtocolError) -> bool:
    """True when a connection that was kept open turned out to be closed: nothing was answered."""
    return any(isinstance(one, RemoteDisconnected) for one in error.args)


def _headers(request: Request) -> dict[str, str]:
    headers = {"User-Agent": "backgate", "Accept-Encoding": "identity"}
    if request.body is not None:
        headers["Content-Length"] = str(len(request.body))
    elif request.method in ("PUT", "POST"):
        headers["Content-Length"] = "0"
    return headers | dict(request.headers)


def _bounded(response: Any, limit: int) -> bytes | None:
    """Read the body, into one piece of memory where its length is told; None: it is too long."""
    length = size_from(response.headers.get("content-length", ""))
    if length is not None and length <= limit:
        data: bytes = response.read()
        return data
    pieces: list[bytes] = []
    left = limit + 1
    while left > 0 and (piece := response.read(min(left, MIB))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces) if left > 0 else None

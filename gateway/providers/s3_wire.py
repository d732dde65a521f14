"""Requests and answers that are short, over connections that are kept open.

What urllib3 and http.client make of a PUT of 16 KiB costs three times the CPU of all the rest:
headers and body leave in two pieces, and the answer's headers are parsed as an e-mail's. Here a
request is one piece, and an answer is a status, some lines and seldom a body. What is longer,
wants a proxy or has to ask first is theirs (`s3_requests.py`).
"""

import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from http.client import BadStatusLine, HTTPException, RemoteDisconnected
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import EndpointConnectionError, ParamValidationError
from botocore.httpsession import create_urllib3_context, get_cert_path
from urllib3.util.wait import wait_for_read

from backgate.gateway import threads
from backgate.gateway.provider import Body
from backgate.gateway.providers.s3_client import CONNECT_WITHIN, Connection
from backgate.gateway.units import KIB

BODY_MAX = 64 * KIB  # bytes of an answer; one that says why it is no is far shorter
LINE_MAX = 64 * KIB  # bytes
LINES_MAX = 100  # of headers, and of answers that only say that one is to come
CHUNK_DIGITS = 15  # of a chunk's length; more are no length
RECEIVE = 16 * KIB  # bytes asked for at a time
FINAL = 200  # HTTP status; what is below only says that an answer is to come
END = b""  # the line that ends headers, chunks and trailers

_PORTS = {"http": 80, "https": 443}
_NO_BODY = frozenset((204, 304))  # statuses


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are lower-case, and a body ends at `BODY_MAX`."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """What to send; `headers` are all but Host, and name the body's length if there is one."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Body = b""

    def as_bytes(self, host: str) -> bytes:
        """Return it as it is sent. Raises `ParamValidationError` for what would end a header."""
        parts = urlsplit(self.url)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        lines = [f"{self.method} {target} HTTP/1.1", f"Host: {host}", "Accept-Encoding: identity"]
        lines += [f"{name}: {text}" for name, text in self.headers.items()]
        head = "\r\n".join([*lines, "", ""])
        if not head.count("\r") == head.count("\n") == len(lines) + 1:
            raise ParamValidationError(report="a header with more than one line")
        return b"".join((head.encode("latin-1"), self.body))


class Wire:
    """Connections to the host of one bucket; any number of threads may ask."""

    def __init__(self, connection: Connection, host: str, answer_within: float) -> None:
        self._url, self._ca_bundle = connection.bucket_url, connection.ca_bundle
        self._host, self._answer_within = host, answer_within
        self._idle: deque[_Link] = deque()
        self._context: ssl.SSLContext | None = None
        self._making = threading.Lock()
        self._is_closed = False

    def ask(
        self, message: Message, bounded: Callable[[socket.socket], AbstractContextManager[None]]
    ) -> Answer:
        """Return the answer to `message`, whatever its status; `bounded` is open while it comes.

        Raises `OSError`, `HTTPException` and botocore's errors when there is none.
        """
        data = message.as_bytes(self._host)
        link = self._open()
        keeps = False
        try:
            with bounded(link.socket):
                answer, keeps = link.exchange(data, has_body=message.method != "HEAD")
            return answer
        finally:
            if keeps and len(self._idle) < threads.CONNECTIONS:
                self._idle.append(link)
            else:
                link.close()
            if self._is_closed:
                self.close()

    def close(self) -> None:
        """Close what nobody uses; what is in use is closed when it has ended."""
        self._is_closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _open(self) -> "_Link":
        with suppress(IndexError):
            while True:
                link = self._idle.pop()
                if not wait_for_read(link.socket, timeout=0):
                    return link
                link.close()  # the other side has closed it, or says what nobody asked
        return _Link(self._connected())

    def _connected(self) -> socket.socket:
        parts = urlsplit(self._url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        try:
            plain = socket.create_connection((host, port), CONNECT_WITHIN)
        except OSError as error:
            raise EndpointConnectionError(endpoint_url=self._url, error=error) from error
        try:
            # Answers are awaited: nothing is to be gained by waiting for more to send.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            is_plain = parts.scheme == "http"
            made = plain if is_plain else self._trusted().wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        made.settimeout(self._answer_within)
        return made

    def _trusted(self) -> ssl.SSLContext:
        with self._making:
            if self._context is None:
                context = create_urllib3_context()
                verify: Any = self._ca_bundle or True  # its stub knows no file
                context.load_verify_locations(cafile=get_cert_path(verify))
                context.check_hostname = True
                self._context = context
            return self._context


class _Link:
    """One connection, used by one thread at a time."""

    def __init__(self, made: socket.socket) -> None:
        self.socket = made
        self._held = bytearray()  # what came and was not looked at yet

    def exchange(self, data: bytes, *, has_body: bool) -> tuple[Answer, bool]:
        """Send `data`; return the answer, and whether the connection is good for another one."""
        is_sent = False
        # A server may say no and close before it has read all: what it said can be read still.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)
            is_sent = True
        for _ in range(LINES_MAX):
            version, status, headers = self._head()
            if status >= FINAL:
                break
        else:
            raise HTTPException("no answer but that one is to come")
        body, is_whole = b"", True
        if has_body and status not in _NO_BODY:
            body, is_whole = self._body(headers)
        is_kept = version != b"HTTP/1.0" and "close" not in headers.get("connection", "").lower()
        return Answer(status, headers, body), is_sent and is_whole and is_kept and not self._is_left

    def close(self) -> None:
        self.socket.close()

    @property
    def _is_left(self) -> bool:
        """True when more came than was asked for: the next answer would be that."""
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        return bool(self._held)

    def _head(self) -> tuple[bytes, int, dict[str, str]]:
        """Return the version, the status and the headers of what comes next."""
        line = self._line()
        words = line.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise BadStatusLine(repr(line[:LINES_MAX]))
        headers: dict[str, str] = {}
        for _ in range(LINES_MAX):
            line = self._line()
            if line == END:
                return words[0], int(words[1][:LINES_MAX]), headers
            name, _, value = line.decode("latin-1").partition(":")
            name, text = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {text}" if name in headers else text
        raise HTTPException(f"more than {LINES_MAX} headers")

    def _body(self, headers: Mapping[str, str]) -> tuple[bytes, bool]:
        """Return the body, and whether it is all that was to come."""
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return self._chunks()
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            return self._read(BODY_MAX), False
        expected = int(length[:LINES_MAX])
        body = self._read(min(expected, BODY_MAX))
        return body, len(body) == expected

    def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        while size := _chunk_size(self._line()):
            body += self._read(min(size, BODY_MAX - len(body)))
            if len(body) == BODY_MAX or self._line() != END:
                return body, False
        return body, self._line() == END  # trailers are nothing that we asked for

    def _line(self) -> bytes:
        """Return the next line, without its end."""
        while (stop := self._held.find(b"\n")) < 0:
            if len(self._held) > LINE_MAX:
                raise HTTPException(f"a line of more than {LINE_MAX} bytes")
            if not self._more():
                raise RemoteDisconnected("the connection was closed without an answer")
        line = bytes(self._held[:stop])
        del self._held[: stop + 1]
        return line.removesuffix(b"\r")

    def _read(self, count: int) -> bytes:
        """Return `count` bytes, fewer only where the connection ends."""
        while len(self._held) < count and self._more():
            pass
        data = bytes(self._held[:count])
        del self._held[:count]
        return data

    def _more(self) -> bool:
        data = self.socket.recv(RECEIVE)
        self._held += data
        return bool(data)


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits.isalnum() or len(digits) > CHUNK_DIGITS:
        raise HTTPException("the length of a chunk is no number")
    try:
        return int(digits, 16)
    except ValueError:
        raise HTTPException("the length of a chunk is no number") from None

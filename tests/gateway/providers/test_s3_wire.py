"""Short requests to a server that answers in every way: what is read, which connection is kept."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from http.client import HTTPException, RemoteDisconnected

import pytest
from botocore.exceptions import EndpointConnectionError, ParamValidationError

from backgate.gateway.credentials import Credentials
from backgate.gateway.profiles import profile
from backgate.gateway.providers.s3 import S3
from backgate.gateway.providers.s3_client import Connection
from backgate.gateway.providers.s3_wire import BODY_MAX, LINE_MAX, LINES_MAX, Answer, Message, Wire

PATIENCE = 5.0  # seconds; for a test that fails
FINE = b"HTTP/1.1 200 OK\r\nETag: 1\r\nContent-Length: 0\r\n\r\n"


class Server:
    """Answers each request with the next of `answers`; b"" closes the connection instead."""

    def __init__(self, answers: list[bytes], *, reads: bool = True) -> None:
        self.answers, self._reads = answers, reads
        self.requests: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/bucket/"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.close()
        self._thread.join(PATIENCE)

    def _serve(self) -> None:
        while self.answers:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection, suppress(ConnectionError):
                connection.settimeout(PATIENCE)
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        while self.answers:
            if self._reads:
                request = connection.recv(1_000_000)
                if not request:
                    return
                self.requests.append(request)
            answer = self.answers.pop(0)
            connection.sendall(answer)
            if not answer or b"onnection: close" in answer or b"HTTP/1.0" in answer:
                return
        while connection.recv(1_000_000):
            pass  # until the client closes it


@contextmanager
def serving(*answers: bytes, reads: bool = True) -> Iterator[tuple[Server, Wire]]:
    server = Server(list(answers), reads=reads)
    wire = wire_to(server.url)
    try:
        yield server, wire
    finally:
        wire.close()
        server.close()


def connection_to(endpoint: str) -> Connection:
    return Connection(
        bucket="bucket",
        endpoint_url=endpoint,
        region="us-east-1",
        profile=profile("generic"),
        credentials=Credentials("key", "secret"),
    )


def wire_to(url: str) -> Wire:
    return Wire(connection_to(url.removesuffix("bucket/")), "host:1", PATIENCE)


def asked(wire: Wire, url: str, method: str = "PUT", body: bytes = b"body") -> Answer:
    headers = {"Content-Length": str(len(body))}
    return wire.ask(Message(method, f"{url}key?a=b", headers, body), lambda _: nullcontext())


def test_a_request_is_sent_as_it_is_and_its_answer_is_read() -> None:
    with serving(FINE, FINE) as (server, wire):
        answer = asked(wire, server.url)
        asked(wire, server.url, "DELETE", b"")

    assert (answer.status_code, answer.headers["etag"], answer.body) == (200, "1", b"")
    assert server.requests[0] == (
        b"PUT /bucket/key?a=b HTTP/1.1\r\nHost: host:1\r\nAccept-Encoding: identity\r\n"
        b"Content-Length: 4\r\n\r\nbody"
    )
    assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nwhy", b"why"),
        (
            b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2;x=y\r\nwh\r\n1\r\ny\r\n0\r\n\r\n",
            b"why",
        ),
        (b"HTTP/1.1 204 Gone\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + FINE, b""),
        (b"HTTP/1.1 200\nContent-Length: 1\n\n1", b"1"),
    ],
)
def test_a_whole_answer_keeps_its_connection(answer: bytes, body: bytes) -> None:
    with serving(answer, FINE) as (server, wire):
        assert asked(wire, server.url).body == body
        assert asked(wire, server.url).headers["etag"] == "1"

    assert server.connections == 1


def test_an_answer_to_head_has_no_body() -> None:
    with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", FINE) as (server, wire):
        assert asked(wire, server.url, "HEAD", b"").headers["content-length"] == "500"
        asked(wire, server.url)

    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        FINE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        FINE.replace(b"ETag", b"Connection: close\r\nETag"),
        FINE + FINE.replace(b"ETag: 1", b"ETag: 666"),  # nobody asked for the second
        b"HTTP/1.1 200 OK\r\nETag: 1\r\nContent-Length: 0\r\n\r\nmore",
        b"HTTP/1.1 500 Oh\r\nContent-Length: %d\r\n\r\n%b" % (BODY_MAX + 1, bytes(BODY_MAX + 1)),
        b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        % (BODY_MAX + 1, bytes(BODY_MAX + 1)),
        b"HTTP/1.1 500 Oh\r\nConnection: close\r\n\r\n" + bytes(99),
    ],
    ids=["old", "closing", "two answers", "too much", "long", "long chunk", "without length"],
)
def test_a_connection_that_may_hold_anything_else_is_not_used_again(answer: bytes) -> None:
    with serving(answer, FINE) as (server, wire):
        assert len(asked(wire, server.url).body) <= BODY_MAX

        assert asked(wire, server.url).headers["etag"] == "1"

    assert server.connections == 2


def test_a_connection_that_was_closed_meanwhile_is_replaced() -> None:
    with serving(FINE, b"", FINE) as (server, wire):
        asked(wire, server.url)
        with pytest.raises(RemoteDisconnected):
            asked(wire, server.url)
        assert asked(wire, server.url).status_code == 200

    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"SMTP ready\r\n\r\n",
        b"HTTP/1.1 fine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nLong: " + bytes(LINE_MAX + 100_000),
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * (LINES_MAX + 1) + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * (LINES_MAX + 1),
        b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 30 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nHalf: a header\r\nConnection: close",
    ],
)
def test_what_is_no_answer_is_an_error_and_ends_the_connection(answer: bytes) -> None:
    with serving(answer, FINE) as (server, wire):
        with pytest.raises(HTTPException):
            asked(wire, server.url)
        assert asked(wire, server.url).status_code == 200

    assert server.connections == 2


def test_what_a_server_says_before_it_closes_is_read() -> None:
    no = b"HTTP/1.1 403 No\r\nConnection: close\r\nContent-Length: 3\r\n\r\nwhy"
    with serving(no, reads=False) as (server, wire):
        answer = asked(wire, server.url, body=b"")

    assert (answer.status_code, answer.body) == (403, b"why")


def test_where_a_proxy_is_wanted_requests_go_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FINE.replace(b"ETag: 1", b'ETag: "1"')) as (server, _):
        monkeypatch.setenv("http_proxy", server.url.removesuffix("/bucket/"))
        monkeypatch.delenv("no_proxy", raising=False)
        provider = S3(connection_to("http://store.example/"))
        assert provider.put("key", b"").etag == "1"
        provider.close()

    assert server.requests[0].startswith(b"PUT http://store.example/bucket/key HTTP/1.1")


def test_a_header_is_one_line() -> None:
    message = Message("PUT", "http://host/key", {"x-amz-meta-a": "1\r\nx-amz-acl: public-read"})

    with pytest.raises(ParamValidationError):
        message.as_bytes("host")


def test_a_server_that_is_not_there_is_named() -> None:
    wire = wire_to("http://127.0.0.1:1/bucket/")

    with pytest.raises(EndpointConnectionError, match=r"http://127\.0\.0\.1:1/bucket/"):
        asked(wire, "http://127.0.0.1:1/bucket/")

"""HTTP of our own: what a server may do to a connection, and what comes of it."""

import socket
import threading
from collections.abc import Iterator

import pytest

from backgate.gateway.errors import StoreError, Unreachable
from backgate.gateway.providers.web import Request, Web

FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers each connection with one list of answers, a request each, and closes it.

    An answer that is None is none: the request is read, and the connection closed.
    """

    def __init__(self) -> None:
        self.connections: list[list[bytes | None]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                for answer in self.connections.pop(0) if self.connections else []:
                    if connection.recv(65536) and answer is not None:
                        connection.sendall(answer)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def web(server: Server) -> Iterator[Web]:
    made = Web(server.url, None)
    yield made
    made.close()


def test_a_kept_connection_that_was_closed_is_made_anew(server: Server, web: Web) -> None:
    server.connections = [[FINE, None], [FINE]]

    for _ in range(2):
        assert web.ask(Request(method="GET", target="/"), "x").body == b"ok"


def test_what_changes_something_is_sent_once(server: Server, web: Web) -> None:
    server.connections = [[FINE, None], [FINE]]

    assert web.ask(Request(method="PUT", target="/"), "x").is_fine
    with pytest.raises(Unreachable, match="x: "):
        web.ask(Request(method="PUT", target="/", body=b"data"), "x")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Unreachable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + 9000 * b"x", StoreError),
        (b"HTTP/1.1 200 OK\r\n\r\n" + 9000 * b"x", StoreError),
        (b"nonsense\r\n\r\n", Unreachable),
    ],
)
def test_an_answer_that_is_not_what_it_should_be_is_refused(
    answer: bytes, error: type[StoreError], server: Server, web: Web
) -> None:
    server.connections = [[answer], [answer]]

    with pytest.raises(error):
        web.ask(Request(method="GET", target="/", limit=1000), "x")


@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7), ("", None), ("soon", None), ("9" * 30, 999_999_999)]
)
def test_a_store_says_how_long_to_wait(
    text: str, seconds: float | None, server: Server, web: Web
) -> None:
    head = f"HTTP/1.1 503 Busy\r\nRetry-After: {text}\r\nContent-Length: 0\r\n\r\n"
    server.connections = [[head.encode()]]

    assert web.ask(Request(method="PUT", target="/"), "x").retry_after == seconds

"""An HTTP/1.1 reverse proxy that fails on demand, between the gateway and a real server.

It runs in a thread of its own, on the real clock, so tests with any clock (or with none) can use
it. The Host header passes through, so signatures stay valid.
"""

import math
import re
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import h11
import trio

RECEIVE = 256 * 1024  # bytes at a time
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError, OSError)


@dataclass(slots=True, kw_only=True)
class Rule:
    """What happens to requests whose "METHOD target" matches; the first rule that applies wins."""

    match: str = "."  # regular expression
    skip: int = 0  # matching requests that pass first
    times: float = math.inf  # requests it applies to
    delay: float = 0.0  # seconds before the request is forwarded
    status: int | None = None  # answer with this instead of forwarding
    headers: dict[str, str] = field(default_factory=dict)  # of that answer
    body: bytes = b""  # of that answer
    is_refused: bool = False  # reset the connection instead of forwarding
    is_lost: bool = False  # the server acts, and the connection is reset instead of the answer
    reset_after: int | None = None  # bytes of the answer's body, then a reset
    truncate_after: int | None = None  # bytes of the answer's body, then a close
    stall_after: int | None = None  # bytes of the answer's body, then silence
    flip_at: int | None = None  # byte of the answer's body in which a bit is wrong
    bytes_per_second: float = math.inf  # of the answer's body


@dataclass(slots=True)
class FaultProxy:
    """A running proxy. `rules` may be changed at any time; `requests` lists what passed."""

    url: str
    rules: list[Rule] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)  # "METHOD target"
    headers: list[dict[str, str]] = field(default_factory=list)  # of each request, lower-case


@contextmanager
def fault_proxy(upstream: str, certificate: ssl.SSLContext | None = None) -> Iterator[FaultProxy]:
    """Run a proxy in front of the http:// URL `upstream`; over TLS when `certificate` is given."""
    proxy = FaultProxy("")
    started, token = threading.Event(), []

    async def main() -> None:
        address = (urlsplit(upstream).hostname or "", urlsplit(upstream).port or 80)
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listeners[0].socket.getsockname()[1]
            proxy.url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{port}"
            token.extend([trio.lowlevel.current_trio_token(), nursery.cancel_scope])
            started.set()
            serve = partial(_serve, proxy, address, certificate)
            await trio.serve_listeners(serve, listeners, handler_nursery=nursery)

    thread = threading.Thread(target=trio.run, args=(main,), name="fault proxy")
    thread.start()
    started.wait()
    try:
        yield proxy
    finally:
        token[0].run_sync_soon(token[1].cancel)
        thread.join()


def certificate_for(directory: Path) -> tuple[ssl.SSLContext, str]:
    """Return a server's context for 127.0.0.1, and the file of the authority to trust."""
    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = directory / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))
    return context, str(bundle)


class _Reset(Exception):
    """The client's connection is to be reset."""


async def _serve(
    proxy: FaultProxy,
    address: tuple[str, int],
    certificate: ssl.SSLContext | None,
    transport: trio.SocketStream,
) -> None:
    transport.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream: trio.abc.Stream = transport
    if certificate is not None:
        stream = trio.SSLStream(transport, certificate, server_side=True, https_compatible=True)
    async with aclosing(transport):
        with suppress(*_GONE):
            try:
                await _exchanges(proxy, address, stream)
            except _Reset:
                linger = struct.pack("ii", 1, 0)
                transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


async def _exchanges(proxy: FaultProxy, address: tuple[str, int], stream: trio.abc.Stream) -> None:
    """Relay requests and answers until either side closes, over one upstream connection each."""
    client = h11.Connection(h11.SERVER)
    while client.our_state is h11.IDLE:
        request = await _event(client, stream)
        if not isinstance(request, h11.Request):
            return
        rule = _rule(proxy, request)
        await trio.sleep(rule.delay)
        if rule.is_refused:
            raise _Reset
        if rule.status is not None:
            await _answer(client, stream, request, rule)
        else:
            async with await trio.open_tcp_stream(*address) as upstream:
                upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server = h11.Connection(h11.CLIENT)
                await _relay_request(request, client, stream, server, upstream)
                await _relay_answer(rule, client, stream, server, upstream)
        if client.our_state is h11.DONE and client.their_state is h11.DONE:
            client.start_next_cycle()


def _rule(proxy: FaultProxy, request: h11.Request) -> Rule:
    line = f"{request.method.decode()} {request.target.decode()}"
    proxy.requests.append(line)
    proxy.headers.append({name.decode(): text.decode() for name, text in request.headers})
    for rule in proxy.rules:
        if rule.times <= 0 or not re.search(rule.match, line):
            continue
        if rule.skip > 0:
            rule.skip -= 1
            continue
        rule.times -= 1
        return rule
    return Rule()


async def _answer(
    client: h11.Connection, stream: trio.abc.Stream, request: h11.Request, rule: Rule
) -> None:
    while not isinstance(await _event(client, stream), h11.EndOfMessage):
        pass
    headers = [*rule.headers.items(), ("Content-Length", str(len(rule.body)))]
    events: list[h11.Event] = [h11.Response(status_code=rule.status or 500, headers=headers)]
    if rule.body and request.method != b"HEAD":
        events.append(h11.Data(data=rule.body))
    for event in [*events, h11.EndOfMessage()]:
        await _send(client, stream, event)


async def _relay_request(
    request: h11.Request,
    client: h11.Connection,
    stream: trio.abc.Stream,
    server: h11.Connection,
    upstream: trio.abc.Stream,
) -> None:
    kept = [(name, text) for name, text in request.headers if name != b"expect"]
    head = h11.Request(method=request.method, target=request.target, headers=kept)
    await _send(server, upstream, head)
    while True:
        event = await _event(client, stream)
        await _send(server, upstream, event)
        if isinstance(event, h11.EndOfMessage):
            return


async def _relay_answer(
    rule: Rule,
    client: h11.Connection,
    stream: trio.abc.Stream,
    server: h11.Connection,
    upstream: trio.abc.Stream,
) -> None:
    answer = await _event(server, upstream)
    while isinstance(answer, h11.InformationalResponse):
        answer = await _event(server, upstream)
    if rule.is_lost or not isinstance(answer, h11.Response):
        raise _Reset
    await _send(
        client, stream, h11.Response(status_code=answer.status_code, headers=answer.headers)
    )
    sent = 0
    while isinstance(event := await _event(server, upstream), h11.Data):
        data = _flipped(bytes(event.data), rule, sent)
        cut = _cut(rule, sent + len(data))
        if cut is not None:
            await _send(client, stream, h11.Data(data=data[: cut[0] - sent]))
            await cut[1]()
            return
        await trio.sleep(len(data) / rule.bytes_per_second)
        await _send(client, stream, h11.Data(data=data))
        sent += len(data)
    await _send(client, stream, h11.EndOfMessage())


def _cut(rule: Rule, reached: int) -> tuple[int, Callable[[], Awaitable[None]]] | None:
    """The byte at which the answer breaks off and how, if it is among those up to `reached`."""
    for after, how in (
        (rule.reset_after, _reset),
        (rule.truncate_after, trio.lowlevel.checkpoint),
        (rule.stall_after, trio.sleep_forever),
    ):
        if after is not None and reached > after:
            return after, how
    return None


async def _reset() -> None:
    raise _Reset


def _flipped(data: bytes, rule: Rule, sent: int) -> bytes:
    if rule.flip_at is None or not sent <= rule.flip_at < sent + len(data):
        return data
    wrong = bytearray(data)
    wrong[rule.flip_at - sent] ^= 1
    return bytes(wrong)


async def _event(connection: h11.Connection, stream: trio.abc.Stream) -> h11.Event:
    while True:
        event = connection.next_event()
        if event is not h11.NEED_DATA:
            return event  # type: ignore[return-value]
        if connection.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            await _send(connection, stream, go_on)
        connection.receive_data(await stream.receive_some(RECEIVE))


async def _send(connection: h11.Connection, stream: trio.abc.Stream, event: h11.Event) -> None:
    data = connection.send(event)
    if data:
        await stream.send_all(data)

"""An HTTP/1.1 reverse proxy that fails on demand, between the gateway and a real server.

It runs in a thread of its own, on the real clock, so tests with any clock (or with none) can use
it. The Host header passes through, so signatures stay valid; what has to be changed in a request is
signed again.
"""

import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h11
import trio
from servers.faults.listings import Listings
from servers.faults.rule import Asked, Rule
from servers.faults.rulesets import RuleSet
from servers.faults.upstream import connected, items_below, signed

__all__ = ["FaultProxy", "Rule", "certificate_for", "fault_proxy"]

RECEIVE = 256 * 1024  # bytes at a time
_LENGTH = ("content-length", b"content-length")
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError, OSError)


@dataclass(slots=True)
class FaultProxy:
    """A running proxy. All but `url` may be changed at any time; `requests` lists what passed."""

    url: str
    rules: list[Rule] = field(default_factory=list)
    listings: Listings | None = None  # None: the server's own
    drops: frozenset[str] = frozenset()  # headers that the server never sees, in lower case
    ignores_expect: bool = False  # nobody who asks whether to send a body is told to go on
    connections: int = 0  # that were made
    requests: list[str] = field(default_factory=list)  # "METHOD target"
    headers: list[dict[str, str]] = field(default_factory=list)  # of each request, lower-case

    def emulate(self, weak: RuleSet) -> None:
        """Behave as a provider does, instead of whatever it was before."""
        self.rules[:] = weak.rules
        self.listings, self.drops = weak.listings, weak.drops
        self.ignores_expect = weak.ignores_expect


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
    proxy.connections += 1
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
    client = _Client(proxy, stream)
    while client.connection.our_state is h11.IDLE:
        request = await client.event()
        if not isinstance(request, h11.Request):
            return
        asked = _asked(request)
        rule = _rule(proxy, asked)
        await trio.sleep(rule.delay)
        if rule.is_refused:
            raise _Reset
        if rule.status is not None:
            await client.answer(asked, rule)
        elif proxy.listings is not None and asked.is_listing:
            await _list(proxy.listings, address, client, asked, rule)
        else:
            async with await connected(address) as upstream:
                server = _Peer(h11.Connection(h11.CLIENT), upstream)
                await _relay_request(proxy, request, asked, rule, client, server)
                await _relay_answer(rule, client, server)
        connection = client.connection
        if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
            connection.start_next_cycle()


@dataclass(slots=True)
class _Peer:
    """One end of a connection, and the HTTP spoken over it."""

    connection: h11.Connection
    stream: trio.abc.Stream

    async def event(self) -> h11.Event:
        while True:
            event = self.connection.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]
            await self.go_on()
            self.connection.receive_data(await self.stream.receive_some(RECEIVE))

    async def go_on(self) -> None:
        """Say what the other end waits for before it sends a body."""

    async def send(self, event: h11.Event) -> None:
        data = self.connection.send(event)
        if data:
            await self.stream.send_all(data)


class _Client(_Peer):
    """The client's end."""

    def __init__(self, proxy: FaultProxy, stream: trio.abc.Stream) -> None:
        super().__init__(h11.Connection(h11.SERVER), stream)
        self._proxy = proxy

    async def go_on(self) -> None:
        if self.connection.they_are_waiting_for_100_continue and not self._proxy.ignores_expect:
            await self.send(h11.InformationalResponse(status_code=100, headers=[]))

    async def answer(self, asked: Asked, rule: Rule) -> None:
        """Answer by a rule, instead of the server."""
        while not isinstance(await self.event(), h11.EndOfMessage):
            pass
        body = rule.error
        headers = [*rule.headers.items(), ("Content-Length", str(len(body)))]
        await self.send(h11.Response(status_code=rule.status or 500, headers=headers))
        if body and asked.method != "HEAD":
            await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())


def _asked(request: h11.Request) -> Asked:
    headers = {name.decode(): text.decode() for name, text in request.headers}
    return Asked(request.method.decode(), request.target.decode(), headers)


def _rule(proxy: FaultProxy, asked: Asked) -> Rule:
    proxy.requests.append(asked.line)
    proxy.headers.append(asked.headers)
    return next((rule for rule in proxy.rules if rule.applies(asked)), Rule())


async def _list(
    listings: Listings, address: tuple[str, int], client: _Client, asked: Asked, rule: Rule
) -> None:
    """Answer a listing out of what the server holds."""
    while not isinstance(await client.event(), h11.EndOfMessage):
        pass
    held = await items_below(address, asked.path, asked.query.get("prefix", ""))
    await trio.sleep(listings.wait(asked, len(held)))
    body = listings.answer(asked, held)
    if rule.is_lost:
        raise _Reset
    head = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    await client.send(_head(rule, 200, head, len(body)))
    await _send_body(rule, client, body, 0)
    await client.send(h11.EndOfMessage())


async def _relay_request(
    proxy: FaultProxy,
    request: h11.Request,
    asked: Asked,
    rule: Rule,
    client: _Client,
    server: _Peer,
) -> None:
    headers = {name: text for name, text in asked.headers.items() if name != "expect"}
    if not proxy.drops.isdisjoint(headers):
        kept = {name: text for name, text in headers.items() if name not in proxy.drops}
        headers = signed(asked.method, asked.target, kept)
    head = h11.Request(method=request.method, target=request.target, headers=list(headers.items()))
    await server.send(head)
    taken = 0
    while True:
        event = await client.event()
        if isinstance(event, h11.Data):
            data = _flipped(bytes(event.data), rule.upload_flips_at, taken)
            event, taken = h11.Data(data=data), taken + len(data)
        if rule.upload_resets_after is not None and taken > rule.upload_resets_after:
            raise _Reset
        await server.send(event)
        if isinstance(event, h11.EndOfMessage):
            return


async def _relay_answer(rule: Rule, client: _Client, server: _Peer) -> None:
    answer = await server.event()
    while isinstance(answer, h11.InformationalResponse):
        answer = await server.event()
    if rule.is_lost or not isinstance(answer, h11.Response):
        raise _Reset
    length = dict(answer.headers).get(b"content-length", b"")
    size = int(length) if length.isdigit() else None
    await client.send(_head(rule, answer.status_code, list(answer.headers), size))
    sent = 0
    while isinstance(event := await server.event(), h11.Data):
        await _send_body(rule, client, bytes(event.data), sent)
        sent += len(event.data)
    await client.send(h11.EndOfMessage())


def _head(rule: Rule, status: int, headers: list[Any], size: int | None) -> h11.Response:
    """The answer's head, which announces a shorter body where the rule ends it."""
    if rule.ends_after is not None and size is not None:
        headers = [pair for pair in headers if pair[0].lower() not in _LENGTH]
        headers.append(("Content-Length", str(min(size, rule.ends_after))))
    return h11.Response(status_code=status, headers=headers)


async def _send_body(rule: Rule, client: _Client, data: bytes, sent: int) -> None:
    """Send a piece of the body, `sent` bytes after its start, as far as the rule lets it pass."""
    end = len(data) if rule.ends_after is None else max(0, rule.ends_after - sent)
    data = _flipped(data[:end], rule.flip_at, sent)
    cut = _cut(rule, sent + len(data))
    if cut is not None:
        await client.send(h11.Data(data=data[: cut[0] - sent]))
        await cut[1]()
        raise trio.ClosedResourceError
    step = rule.piece or max(1, len(data))
    for at in range(0, len(data), step):
        part = data[at : at + step]
        await trio.sleep(len(part) / rule.bytes_per_second)
        await client.send(h11.Data(data=part))


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


def _flipped(data: bytes, flip_at: int | None, sent: int) -> bytes:
    if flip_at is None or not sent <= flip_at < sent + len(data):
        return data
    wrong = bytearray(data)
    wrong[flip_at - sent] ^= 1
    return bytes(wrong)

"""A mount's control socket: lines of JSON from commands of the same user, or of root.

A request is `{"verb": ..., "arguments": {...}}`. The answer is any number of `{"progress": {...}}`
and one `{"result": {...}}` or `{"error": "..."}`. `running.RunningMount.ask` is the other end.
"""

import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from backgate.fs.nurseries import open_nursery
from backgate.fs.replies import explained
from backgate.fs.running import LINE_MAX, RunningMount, register, short_path
from backgate.gateway.errors import BackgateError, UsageError

BACKLOG = 16  # connections that wait to be accepted
ACCEPTED_MAX = 32  # at once; a command uses one
ACCEPT_AGAIN = 1.0  # seconds until it is tried again after an error
OWNER_ONLY = 0o177  # umask: a socket that nobody else can connect to
CHUNK = 64 * 1024  # bytes
REQUEST_WITHIN = 10.0  # seconds; a command sends its request as soon as it is connected
ANSWER_TAKEN_WITHIN = 60.0  # seconds; a command that was stopped must not keep its place
FAREWELL = 2.0  # seconds that answers under way get when the mount is over
_PEER = struct.Struct("3i")  # pid, uid, gid of SO_PEERCRED

Arguments = Mapping[str, Any]
Progress = Callable[[Mapping[str, Any]], Awaitable[None]]
Verb = Callable[[Arguments, Progress], Awaitable[Mapping[str, Any]]]

log = logging.getLogger(__name__)


@asynccontextmanager
async def controlled(mount: RunningMount, verbs: Mapping[str, Verb]) -> AsyncIterator[None]:
    """Answer `verbs` on the socket of `mount`, and have it found, until the context is left.

    Answers under way when it is left get `FAREWELL` seconds to be sent.
    """
    listener = _listening(mount.socket)
    try:
        registered = register(mount)
        try:
            async with open_nursery() as nursery:
                server = _Server(verbs)
                nursery.start_soon(server.accept, listener)
                try:
                    yield
                finally:
                    with trio.move_on_after(FAREWELL, shield=True):
                        await server.idle()
                    nursery.cancel_scope.cancel()
        finally:
            registered.unlink(missing_ok=True)
    finally:
        listener.close()
        _remove(mount.socket)


class _Server:
    def __init__(self, verbs: Mapping[str, Verb]) -> None:
        self._verbs = verbs
        self._active = 0
        self._ended = trio.Event()  # replaced by a new one whenever an answer ends

    async def idle(self) -> None:
        """Return once no request is being answered."""
        while self._active:
            await self._ended.wait()

    async def accept(self, listener: trio.socket.SocketType) -> None:
        limit = trio.CapacityLimiter(ACCEPTED_MAX)
        async with trio.open_nursery() as connections:
            while True:
                try:
                    connection, _ = await listener.accept()
                except OSError as error:  # too many open files, for one: it must not end the mount
                    log.warning("a command cannot be heard: %s", error)
                    await trio.sleep(ACCEPT_AGAIN)
                    continue
                connections.start_soon(self._serve, trio.SocketStream(connection), limit)

    async def _serve(self, stream: trio.SocketStream, limit: trio.CapacityLimiter) -> None:
        async with stream, limit:
            try:
                request = None
                with trio.move_on_after(REQUEST_WITHIN):
                    request = await _request(stream)
                if request is not None:
                    await self._answer(stream, request)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                log.debug("a command went away before it had its answer")

    async def _answer(self, stream: trio.SocketStream, request: Mapping[str, Any]) -> None:
        async def progress(answer: Mapping[str, Any]) -> None:
            try:
                await _send(stream, {"progress": answer})
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise BackgateError("who asked has gone away") from None

        self._active += 1
        try:
            verb = self._verbs.get(str(request.get("verb")))
            if verb is None:
                raise UsageError(f"this mount knows no {request.get('verb')!r}")
            work = verb(request.get("arguments", {}), progress)
            result = await explained(str(request["verb"]), work)
            await _send(stream, {"result": result})
        except BackgateError as error:
            await _send(stream, {"error": str(error)})
        finally:
            self._active -= 1
            self._ended.set()
            self._ended = trio.Event()


def _listening(path: str) -> trio.socket.SocketType:
    """Return a socket that listens at `path`, in place of one that a crash left there."""
    _remove(path)
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(OWNER_ONLY)
    try:
        # Not trio's bind: it takes a thread, and the umask is the process's.
        _bind(listener, path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise BackgateError(f"{path}: no control socket can be made: {error.strerror}") from error
    finally:
        os.umask(before)
    return listener


def _bind(listener: trio.socket.SocketType, path: str) -> None:
    with socket.socket(fileno=os.dup(listener.fileno())) as plain, short_path(path) as short:
        plain.bind(short)


async def _request(stream: trio.SocketStream) -> Mapping[str, Any] | None:
    """Return what the peer asks; None when it may not ask, or asks nothing that can be read."""
    peer = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _, user, _ = _PEER.unpack(peer)
    if user not in (0, os.geteuid()):
        log.warning("refused a command of user %d", user)
        return None
    line = b""
    while not line.endswith(b"\n"):
        chunk = await stream.receive_some(CHUNK)
        line += chunk
        if not chunk or len(line) > LINE_MAX:
            return None
    try:
        request = json.loads(line)
    except ValueError:
        return None
    return request if isinstance(request, dict) else None


async def _send(stream: trio.SocketStream, answer: Mapping[str, Any]) -> None:
    with trio.move_on_after(ANSWER_TAKEN_WITHIN) as taking:
        await stream.send_all(json.dumps(answer).encode() + b"\n")
    if taking.cancelled_caught:
        raise trio.BrokenResourceError("who asked takes no answer")


def _remove(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)

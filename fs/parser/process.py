"""One worker process: how it is started, asked, and ended.

It gets a socket and nothing else: no environment but what finds its modules, no other descriptor.
What it says is decoded against the types of `messages`; a word that is not one of them ends it.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TypeAlias

import msgspec
import trio

from backgate.fs.parser.checks import plain
from backgate.fs.parser.messages import (
    FRAME_MAX,
    LENGTH,
    Given,
    Message,
    Said,
    Want,
    WantFile,
    frame,
)
from backgate.fs.volumes.replay import PACE

WORKER = ("-m", "backgate.fs.parser.worker")  # what Python is to run
CPU = 10  # seconds of CPU that one request may use
WALL = 3  # seconds that one of CPU may take, on a busy machine
PATIENCE = WALL * CPU  # seconds that it may take, not counting what it waits for us
GIVEN_MAX = 2 << 30  # bytes for which it may take longer, at `PACE`: a log
ASKED_MAX = 20_000  # questions of the worker in one request; a log of 2 GiB takes 4096
PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL")  # to find modules
ENDS_WITHIN = 1.0  # seconds after it has closed its socket
LAST_WORDS = 2000  # bytes of what it wrote before it ended

# Answers a question of the worker's.
Supply: TypeAlias = Callable[[Want | WantFile], Awaitable[Message]]


class Ended(Exception):
    """The worker ended in the middle of a request, or had to be ended; the message says why."""


class NotStarted(Ended):
    """No worker came to be; the message says why, and the next one may."""


class Killed(Ended):
    """Somebody else ended the worker: a system without memory, or a person. It did nothing."""


class Worker:
    """A running worker; `start_worker` makes one, `end` must be called."""

    def __init__(self, process: "subprocess.Popen[bytes]", connection: socket.socket) -> None:
        self._process = process
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
        self._decode = msgspec.msgpack.Decoder(Said).decode
        self._data = bytearray()

    @property
    def number(self) -> int:
        """The process's id."""
        return self._process.pid

    async def ask(self, request: Message, supply: Supply, patience: float = PATIENCE) -> Said:
        """Return the answer; `supply` is asked for what the worker asks for meanwhile.

        Raises `Ended`; after that, and after cancellation, the worker can only be ended.
        """
        message: Message = request
        left, given = patience, 0
        for _ in range(ASKED_MAX):
            begun = trio.current_time()
            with trio.move_on_after(max(0, left)) as scope:
                said = await self._exchange(message)
            if scope.cancelled_caught:
                raise Ended(f"no answer within {patience:g} seconds of work")
            if not isinstance(said, Want | WantFile):
                return said
            left -= trio.current_time() - begun
            message = await supply(said)
            if isinstance(message, Given) and given < GIVEN_MAX:
                given += len(message.data)
                left += WALL * len(message.data) / PACE
        raise Ended(f"more than {ASKED_MAX:,} questions for one answer")

    async def _exchange(self, message: Message) -> Said:
        try:
            await self._stream.send_all(frame(message))
            (length,) = LENGTH.unpack(await self._exactly(LENGTH.size))
            if length > FRAME_MAX:
                raise Ended(f"it sent a message of {length} bytes")
            said: Said = self._decode(await self._exactly(length))
            return said
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise await self._end_of_it() from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Ended(f"it sent garbage: {error}") from error

    async def _exactly(self, length: int) -> bytes:
        while len(self._data) < length:
            more = await self._stream.receive_some(max(65536, length - len(self._data)))
            if not more:
                raise await self._end_of_it()
            self._data += more
        found = bytes(self._data[:length])
        del self._data[:length]
        return found

    async def _end_of_it(self) -> Ended:
        """Say how it ended; it has closed its socket, so it is ending if it has not ended."""
        with trio.move_on_after(ENDS_WITHIN):
            while self._process.poll() is None:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(ENDS_WITHIN / 100)
        code = self._process.returncode
        if code is None:
            return Ended("it closed its socket")
        words = self._last_words()
        if code == -signal.SIGKILL:  # its limits end it in other ways
            return Killed(f"it was killed from outside (signal 9){words}")
        if code < 0:
            return Ended(f"it was ended by signal {-code}{words}")
        return Ended(f"it ended with code {code}{words}")

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        text = (self._process.stderr.read() or b"")[-LAST_WORDS:].decode("utf-8", "replace")
        return f": {plain(text.strip().splitlines()[-1])}" if text.strip() else ""

    def end(self) -> None:
        """End it at once; it has nothing to save.

        One that has opened a file of our own mount may only end once we have answered that: it is
        not waited for, and reaped when the next process is started.
        """
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDS_WITHIN)
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._stream.socket.close()


def start_worker(program: Sequence[str] = WORKER) -> Worker:
    """Start a worker, in a few milliseconds; it is ready once its modules are imported.

    From the thread that calls this it inherits when to end: it must not end before the worker.
    Raises `NotStarted`.
    """
    with ExitStack() as stack:
        try:
            ours, theirs = socket.socketpair()
            stack.callback(ours.close)
            with theirs:
                process = _process(program, theirs.fileno())
        except OSError as error:  # no memory, no process, no descriptor to be had
            raise NotStarted(f"it cannot be started: {error}") from error
        stack.pop_all()
    ours.setblocking(False)
    return Worker(process, ours)


def _process(program: Sequence[str], descriptor: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-P", *program, str(descriptor), str(os.getpid()), str(CPU)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=[descriptor],
        env=_environment(),
        cwd="/",
    )


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # fs-explorer loads no library, neither its own nor what it would start programs to look for.
    return kept | {"FS_EXPLORER_NO_NATIVE": "1", "PYTHONDONTWRITEBYTECODE": "1"}

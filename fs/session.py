"""The life of a mount, from the first answered request to the last stored byte.

Whoever ends it (a signal, a command, an umount from outside) ends it in the same order: what was
written is stored, the mount goes, the process ends. Only `abort` does not wait for the store; the
spool keeps the rest.
"""

import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import pyfuse3
import trio

from backgate.fs.changes import Operations
from backgate.fs.control import Arguments, Progress, Verb
from backgate.fs.handles import Handles
from backgate.fs.inodes import Inodes
from backgate.fs.mountpoint import is_cut_off, unmount
from backgate.fs.notify import keep_alive, notify
from backgate.fs.nurseries import open_nursery
from backgate.fs.outdated import Changed, Path
from backgate.fs.replies import Replies
from backgate.gateway.errors import BackgateError
from backgate.gateway.units import size_to_text

REQUESTS_MAX = 200  # handled at once; each may wait for a store, and the next ones for it
ANSWERS_WITHIN = 30.0  # seconds until a mount that answers nothing is given up
LOOK_EVERY = 1.0  # seconds between two looks at whether the mount is gone
REPORT_EVERY = 0.5  # seconds between two lines of progress

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pending:
    """What was written and is not yet in the store."""

    files: int
    bytes: int
    first: str = ""  # the file that is next
    reason: str = ""  # why it takes long; empty: it does not

    def __str__(self) -> str:
        return f"{self.files} files ({size_to_text(self.bytes)}) not yet in the store"


async def _drained() -> None:
    await trio.lowlevel.checkpoint()


async def _never() -> Iterable[Path]:
    await trio.sleep_forever()
    return ()


def _nothing_pending() -> Pending:
    return Pending(0, 0)


async def _no_status() -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Backing:
    """What a mount asks of, and does for, the repository that it shows."""

    drain: Callable[[], Awaitable[None]] = _drained  # returns once all that was written is stored
    pending: Callable[[], Pending] = _nothing_pending
    waiting: Callable[[], Pending] | None = None  # what `drain` waits for; None: all that pends
    status: Callable[[], Awaitable[Mapping[str, Any]]] = _no_status  # for `backgate status`
    verbs: Mapping[str, Verb] = field(default_factory=dict)  # further ones for the control socket
    changed: Changed = _never  # what was found to have changed in the store


class Session:
    """One mount while it is served."""

    def __init__(
        self,
        mountpoint: str,
        operations: Operations,
        inodes: Inodes,
        handles: Handles,
        backing: Backing,
    ) -> None:
        self._mountpoint, self._operations = mountpoint, operations
        self._inodes, self._handles = inodes, handles
        self._replies: Replies = operations.replies
        self._backing = backing
        self._over = trio.Event()  # no request can come any more
        self._draining: set[trio.CancelScope] = set()
        self._is_stopping = False
        self._is_aborted = False

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """What a command may ask of this mount over its control socket."""
        own = {
            "status": self._status,
            "flush": self._flush,
            "stop": self._unmount,
            "abort": self._abort,
        }
        return {**self._backing.verbs, **own}

    async def serve(
        self, control: AbstractAsyncContextManager[None], ready: Callable[[], None]
    ) -> None:
        """Answer requests until the mount is over and all is stored; `ready` once it answers.

        `control`, whatever it does, is entered before that and left last.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with open_nursery() as nursery:
                nursery.start_soon(self._requests)
                nursery.start_soon(self._notice_umount)
                await self._first_answer()
                async with control:
                    nursery.start_soon(self._obey, signals, nursery)
                    nursery.start_soon(keep_alive)
                    ready()
                    await self._over.wait()
                    if not self._is_aborted:
                        await self._drain()
                nursery.cancel_scope.cancel()

    async def _requests(self) -> None:
        await pyfuse3.main(max_tasks=REQUESTS_MAX)
        self._over.set()

    async def _notice_umount(self) -> None:
        """Answer what is left once somebody else has unmounted: nobody reads it any more."""
        while True:
            await trio.sleep(LOOK_EVERY)
            if self._replies.waiting and is_cut_off():
                await self._replies.changes_answered()
                self._replies.close()
                return

    async def _first_answer(self) -> None:
        """Return once the kernel has had an answer to a stat of the mount point."""
        with trio.move_on_after(ANSWERS_WITHIN):
            try:
                await trio.to_thread.run_sync(os.stat, self._mountpoint, abandon_on_cancel=True)
            except OSError as error:
                raise BackgateError(
                    f"{self._mountpoint}: mounted, but does not answer: {error.strerror}"
                ) from error
            return
        raise BackgateError(f"{self._mountpoint}: mounted, but does not answer")

    async def _obey(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for number in signals:
            if self._is_stopping:
                log.warning("%s: still waiting: %s", self._mountpoint, self._unfinished())
                continue
            log.info("%s: stopping on %s", self._mountpoint, signal.Signals(number).name)
            self._is_stopping = True
            nursery.start_soon(self._stop)

    async def _stop(self) -> None:
        """Begin no more changes, store what was written, and go, whether in use or not."""
        self._operations.is_closing = True
        notify(f"STOPPING=1\nSTATUS={self._unfinished()}")
        await self._replies.changes_answered()
        await self._drain()
        await self._end()

    async def _end(self) -> None:
        """Answer nobody any more, and unmount though somebody may use it still."""
        self._replies.close()
        await self._operations.leave_kernel_alone()
        try:
            await trio.to_thread.run_sync(partial(unmount, self._mountpoint, lazy=True))
        except BackgateError as error:
            log.warning("%s", error)  # closing the session tries it once more
        pyfuse3.terminate()

    def _unfinished(self) -> str:
        writing = self._handles.writers
        return f"{self._backing.pending()}, {writing} files open for writing"

    async def _drain(self, progress: Progress | None = None) -> None:
        with trio.CancelScope() as scope:
            self._draining.add(scope)
            try:
                async with open_nursery() as nursery:
                    if progress is not None:
                        nursery.start_soon(self._report, progress)
                    await self._backing.drain()
                    nursery.cancel_scope.cancel()
            finally:
                self._draining.discard(scope)

    async def _report(self, progress: Progress) -> None:
        while True:
            await progress(asdict((self._backing.waiting or self._backing.pending)()))
            await trio.sleep(REPORT_EVERY)

    async def _status(self, arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        await trio.lowlevel.checkpoint()
        pending = self._backing.pending()
        return {
            "mountpoint": self._mountpoint,
            "time": time.time(),
            "is_stopping": self._is_stopping,
            "inodes": len(self._inodes),
            "open_for_reading": self._handles.readers,
            "open_for_writing": self._handles.writers,
            "requests_waiting": self._replies.waiting,
            "errors": dict(self._replies.errors),
            "pending_files": pending.files,
            "pending_bytes": pending.bytes,
            **await self._backing.status(),
        }

    async def _flush(self, arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        await self._drain(progress)
        return self._left()

    async def _unmount(self, arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        """Store what was written, then unmount; refused, and nothing changed, when it is in use."""
        await self._drain(progress)
        await trio.to_thread.run_sync(unmount, self._mountpoint)
        if is_cut_off():  # what is being read ahead may wait long for a store, and for nobody
            await self._replies.changes_answered()
            self._replies.close()
        async with open_nursery() as nursery:
            nursery.start_soon(self._report, progress)
            await self._over.wait()
            nursery.cancel_scope.cancel()
        await self._drain(progress)
        return self._left()

    async def _abort(self, arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        """Free everybody who waits, and unmount at once; what is not stored stays in the spool."""
        self._is_aborted = self._is_stopping = self._operations.is_closing = True
        freed = self._replies.close()
        for scope in self._draining:
            scope.cancel()
        await self._end()
        return {"freed": freed, **self._left()}

    def _left(self) -> Mapping[str, Any]:
        pending = self._backing.pending()
        return {"pending_files": pending.files, "pending_bytes": pending.bytes}

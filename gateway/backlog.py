"""What of a spool waits to be stored: listed, tried again, sent in order, or dropped by hand."""

import errno
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from backgate.gateway.errors import BackgateError, FileError, StoreError
from backgate.gateway.pending import Pending, State, WaitedFor
from backgate.gateway.records import Gone
from backgate.gateway.spooled import SpooledFile

if TYPE_CHECKING:
    from backgate.gateway.spool import Spool

RETRY_AFTER = 30.0  # seconds until what could not be stored is tried again
DRAIN_AGAIN_AFTER = 1.0  # seconds; somebody is waiting for it
STAGED_FOR = 300.0  # seconds; tools rename within one, and what is never renamed must be stored too

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeftOver:
    """A file that no tool was told is safe, from before a crash; stored only when asked."""

    pending: Pending
    path: Path
    file: SpooledFile | None  # None: the journal does not know enough of it
    hidden: frozenset[str]  # keys of hidden objects that hold bytes of it


class Backlog:
    """The files of `spool` that were closed and are not stored."""

    def __init__(self, spool: "Spool", *, inherits: bool) -> None:
        self._spool = spool
        self._inherits = inherits  # an earlier run acknowledged what waits before it was stored
        self._added = trio.Event()
        self._moved = trio.Event()

    @property
    def is_moving(self) -> bool:
        """True while files are being stored that did not fail before."""
        return bool(self._due(staged_for=math.inf, retried_after=math.inf))

    @property
    def fault(self) -> str:
        """Why a closed file could not be stored; empty when all could."""
        files = (file for file in self._spool.shelf if file.is_waiting and file.reason)
        return next((f"{file.key!r}: {file.reason}" for file in files), "")

    @property
    def _keeps_order(self) -> bool:
        return self._spool.is_lazy or self._inherits

    def wake(self) -> None:
        """Note that a file may have to be stored later."""
        self._added.set()

    def moved(self) -> None:
        """Note that a file was stored, could not be, or is no longer to be."""
        self._moved.set()
        self._moved = trio.Event()

    def pending(self) -> list[Pending]:
        """Return everything that is in the spool and not in the store."""
        files = [
            Pending(file.number, file.key, file.size, self._state(file), file.reason, file.since_ns)
            for file in self._spool.shelf
            if file.key is not None and file.is_dirty
        ]
        return files + [one.pending for one in self._spool.left_over.values()]

    def waited_for(self) -> WaitedFor:
        """Return what `drained` would wait for."""
        due = sorted(self._due(staged_for=0.0, retried_after=0.0), key=lambda file: file.epoch)
        counters = self._spool.store.counters
        reason = counters.last_error if counters.waiting else self.fault
        first = due[0].key or "" if due else ""
        return WaitedFor(len(due), sum(file.unsent for file in due), first, reason if due else "")

    async def drained(self) -> None:
        """Return once everything that was closed is in the store."""
        await self._spool.is_recovered.wait()
        while due := self._due(staged_for=0.0, retried_after=0.0):
            if not await self._store_in_order(due):
                await trio.sleep(DRAIN_AGAIN_AFTER)
        for file in self._spool.shelf:
            async with file.publishing:
                pass  # it has just been stored, and is being tidied up behind
        await self._spool.asides.removed()

    async def settled(self) -> None:
        """Return once nothing waits but what is staged; `StoreError` when that cannot be stored."""
        while due := self._due(staged_for=math.inf, retried_after=0.0):
            await self._stored_before(due)

    async def caught_up(self, but: SpooledFile | None) -> None:
        """Return once nothing waits that an earlier run acknowledged, apart from `but`.

        Raises `StoreError` when that cannot be stored.
        """
        while self._inherits and (due := self._inherited(but)):
            await self._stored_before(due)
        self._inherits = self._inherits and bool(self._inherited(None))

    async def retry(self, key: str | None) -> None:
        """Try now to store what waits, failed or was left over; raises what failed first.

        Where files are stored later than they are closed, none overtakes one that fails again.
        """
        errors: list[BackgateError | OSError] = []
        chosen: list[SpooledFile] = []
        for pending in self._chosen(key):
            try:
                if pending.number in self._spool.left_over:
                    self._adopt(pending.number)
            except BackgateError as error:
                errors.append(error)
            file = self._spool.shelf.get(pending.key)
            if file is not None and file.is_waiting:
                chosen.append(file)
        blocked = math.inf
        for file in sorted(chosen, key=lambda file: file.epoch):
            try:
                if file.epoch <= blocked:
                    await self._store(file)
            except (BackgateError, OSError) as error:
                errors.append(error)
                blocked = file.epoch if self._keeps_order else blocked
        if errors:
            raise errors[0]

    async def discard(self, key: str) -> None:
        """Drop what is in the spool under `key` and not in the store."""
        for pending in self._chosen(key):
            left = self._spool.left_over.pop(pending.number, None)
            if left is not None:
                self._discard_left_over(left)
                continue
            async with self._spool.claims.claim(key):
                file = self._spool.shelf.get(key)
                if file is None or file.number != pending.number or not file.is_dirty:
                    raise FileError(errno.ENOENT, key, "it was stored meanwhile")
                if file.opens:
                    raise FileError(errno.EBUSY, key)
                self._spool.unlinked(file)
        await self._spool.journal.synchronize()

    async def keep_trying(self) -> None:
        """Store what waits, in order, for ever."""
        while True:
            self._added = trio.Event()
            due = self._due(staged_for=STAGED_FOR, retried_after=RETRY_AFTER)
            if due:
                await self._store_in_order(due)
            is_empty = not any(file.is_waiting for file in self._spool.shelf)
            with trio.move_on_after(math.inf if is_empty else RETRY_AFTER):
                await self._added.wait()

    async def _store_in_order(self, files: Iterable[SpooledFile]) -> bool:
        """Try to store `files`, one epoch after the other; False when one could not be."""
        is_well = True
        by_epoch: dict[int, list[SpooledFile]] = {}
        for file in files:
            by_epoch.setdefault(file.epoch, []).append(file)
        for _, together in sorted(by_epoch.items()):
            async with trio.open_nursery() as nursery:
                for file in together:
                    nursery.start_soon(self._try, file)
            if any(file.is_waiting for file in together):
                is_well = False
                if self._keeps_order:
                    break  # later ones were acknowledged after it: they must not overtake it
        return is_well

    async def _stored_before(self, files: Iterable[SpooledFile]) -> None:
        for file in files:
            if file.reason:
                raise StoreError(f"{file.key!r} has to be stored before: {file.reason}")
        await self._moved.wait()

    def _inherited(self, but: SpooledFile | None) -> list[SpooledFile]:
        due = self._due(staged_for=math.inf, retried_after=0.0)
        return [file for file in due if file.is_recovered and file is not but]

    async def _try(self, file: SpooledFile) -> None:
        try:
            await self._store(file)
        except (BackgateError, OSError) as error:
            log.info("%r is not stored yet: %s", file.key, error)

    async def _store(self, file: SpooledFile) -> None:
        key = file.key
        if key is None:
            return
        async with self._spool.claims.claim(key):
            if file.key == key and file.is_waiting:
                await self._spool.publish(file, key)
        self._spool.drop_if_done(file)

    def _due(self, *, staged_for: float, retried_after: float) -> list[SpooledFile]:
        """Return what waits and should be stored by now."""
        now, due, blocked = trio.current_time(), [], math.inf
        for file in self._spool.shelf:
            if not file.is_waiting:
                continue
            is_staged = self._spool.staged.matches(file.key or "")
            if is_staged and file.is_recovered:
                continue  # its tool is gone: only a person knows whether it is worth anything
            patience = staged_for if is_staged else retried_after if file.reason else 0.0
            if now - file.flushed_at >= patience:
                due.append(file)
            elif not is_staged:
                blocked = min(blocked, file.epoch)
        return [file for file in due if file.epoch <= blocked or not self._keeps_order]

    def _chosen(self, key: str | None) -> list[Pending]:
        chosen = [one for one in self.pending() if key is None or one.key == key]
        if key is not None and not chosen:
            raise FileError(errno.ENOENT, key, "nothing of that name is in the spool")
        return chosen

    def _discard_left_over(self, left: LeftOver) -> None:
        if left.file is not None:
            left.file.dispose()
        left.path.unlink(missing_ok=True)
        self._spool.journal.append(Gone(left.pending.number))
        self._spool.asides.remove(left.hidden)

    def _adopt(self, number: int) -> None:
        left = self._spool.left_over[number]
        file = left.file
        if file is None or file.key is None:
            raise FileError(errno.EIO, left.pending.key, f"cannot be stored: {left.pending.reason}")
        if self._spool.shelf.get(file.key) is not None:
            raise FileError(errno.EBUSY, file.key, "a newer file of that name is in the spool")
        del self._spool.left_over[number]
        self._spool.adopt(file)

    def _state(self, file: SpooledFile) -> State:
        if not file.is_waiting:
            return "open"
        if self._spool.staged.matches(file.key or ""):
            return "staged"
        return "failed" if file.reason else "waiting"

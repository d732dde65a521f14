"""An index in PostgreSQL, for any number of gateways over one repository.

Every question and every change goes to the database, in a thread, so all gateways see the same at
once. While the database is away they wait; nothing is answered from memory. A change of which
nobody knows whether it got through is made again: each may be made twice.
"""

import copy
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import trio

from backgate.gateway.errors import BackgateError
from backgate.gateway.metadata import coverage, membership, news
from backgate.gateway.metadata.changes import Changes
from backgate.gateway.metadata.file import MOMENT, Transaction
from backgate.gateway.metadata.index import Change, P, Question, T
from backgate.gateway.metadata.listener import Listener
from backgate.gateway.metadata.postgresql import Connection, Server
from backgate.gateway.metadata.sessions import Sessions

OPEN_PATIENCE = 20.0  # seconds; a mount that cannot come up says so
FAREWELL = 2.0  # seconds to say goodbye; who does not is missed by the others
TIDY_AFTER = 5_000  # changes

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Self:
    """This gateway, as all who use the index have it in common."""

    gateway: int = field(default_factory=lambda: secrets.randbits(62))
    name: str = field(default_factory=socket.gethostname)
    changes: Changes = field(default_factory=lambda: Changes(0))
    has_written: bool = False
    has_lost: bool = False  # an own change was not told: what the index knows is in doubt
    moment: float = float("-inf")  # monotonic seconds; of the last one remembered
    beat: float = float("-inf")  # trio's time; of the last word to the others
    is_crawling: bool = False
    untidy: int = 0  # changes since the last tidying


class SharedIndex:
    """The index of the repository `store` on `server`."""

    def __init__(self, server: Server, store: str) -> None:
        self._sessions = Sessions(server, store)
        self._self = _Self()
        self._listener = Listener(server, self._self.gateway)
        self._patience = float("inf")  # seconds

    async def open(self) -> None:
        """Enter the index, making it when there is none.

        Raises `StoreError` when the database does not answer, `ConfigError` when it is not ours.
        """
        hasty = self.patient(OPEN_PATIENCE)
        self._self.changes = Changes(await hasty._ask(coverage.sequence))
        await hasty.poll()

    async def aclose(self) -> None:
        """Leave it; what was written is kept already."""
        if not self._self.has_lost:
            await self._farewell(lambda db: membership.leave(db, self._self.gateway))
        self._listener.close()
        self._sessions.close()

    @property
    def changes(self) -> Changes:
        return self._self.changes

    @property
    def openings(self) -> int:
        return self._sessions.openings

    @property
    def trouble(self) -> str | None:
        return self._sessions.trouble

    @property
    def generation(self) -> int:
        return self._self.changes.generation

    def patient(self, patience: float) -> "SharedIndex":
        """Return the same index for callers who wait no longer than `patience` seconds for it."""
        other = copy.copy(self)
        other._patience = patience
        return other

    async def read(self, question: Question[P, T], *a: P.args, **k: P.kwargs) -> T:
        """Return the answer; `generation` is not behind it."""
        await self._settle()

        def ask(db: Connection) -> tuple[T, int]:
            return question(db, *a, **k), coverage.sequence(db)

        answer, sequence = await self._ask(ask)
        if sequence > self.generation:
            await self._catch_up()
        return answer

    async def read_behind(self, question: Question[P, T], *a: P.args, **k: P.kwargs) -> T:
        """Return the answer, as `read`: every question is asked in a thread."""
        return await self.read(question, *a, **k)

    async def write(self, change: Change[P, T], *a: P.args, **k: P.kwargs) -> T:
        """Make a change; it is committed when this returns."""
        await self._settle()
        return await self._change(lambda transaction: change(transaction, *a, **k))

    async def write_behind(self, size: int, change: Change[P, T], *a: P.args, **k: P.kwargs) -> T:
        """Make a change, as `write`: every one is made in a thread."""
        await trio.lowlevel.checkpoint()
        return await self.write(change, *a, **k)

    async def note(self, change: Change[P, T], *a: P.args, **k: P.kwargs) -> T:
        """Make a change that the store has made too; when that fails, all is doubted."""
        try:
            return await self.write(change, *a, **k)
        except BaseException:
            self._self.has_lost = True
            raise

    async def news(self, seconds: float) -> None:
        """Return when another gateway has told something, in `seconds` at the latest."""
        await self._listener.wait(seconds)

    async def poll(self) -> None:
        """Look what others have done, say that we are alive, and miss those who do not."""
        me = self._self
        await self._settle()
        await self._catch_up()
        if trio.current_time() < me.beat + membership.BEAT:
            return
        me.beat = trio.current_time()
        gone = await self._sessions.change(self._heartbeat, self._patience)
        if gone:
            log.info("%s: gone: %s", self._sessions.server.name, ", ".join(gone))
            await self.write(membership.judge)

    async def tidy(self, settled: int) -> None:
        """Forget old deletions and old news, now and then."""
        if self._self.untidy < TIDY_AFTER:
            return
        self._self.untidy = 0
        await self.write(coverage.forget_removed, settled)
        await self.write(news.forget)

    async def check(self) -> None:
        """Return at once: a database looks after its own files."""
        await trio.lowlevel.checkpoint()

    async def size(self) -> None:
        """Return nothing: databases tell that in words of their own."""

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Try to be the one gateway that crawls; the turn passes on when we are not heard of."""
        me = self._self
        if me.is_crawling or not await self._sessions.change(
            lambda db: membership.take_turn(db, me.gateway), self._patience
        ):
            yield False
            return
        me.is_crawling = True
        try:
            yield True
        finally:
            me.is_crawling = False
            await self._farewell(lambda db: membership.end_turn(db, me.gateway))

    async def _ask(self, question: Callable[[Connection], T]) -> T:
        return await self._sessions.ask(question, self._patience)

    async def _change(self, change: Callable[[Transaction], T]) -> T:
        def run(db: Connection) -> tuple[Transaction, T]:
            with self._transaction(db) as transaction:
                result = change(transaction)
            return transaction, result

        one, result = await self._sessions.change(run, self._patience)
        me = self._self
        me.untidy += 1
        me.has_written = me.has_written or one.is_own
        if one.keys and one.horizon is None and one.before == self.generation:
            me.changes.took(one.before, one.sequence, one.keys, is_own=one.is_own)
        elif one.has_changed:
            await self._catch_up()
        return result

    @contextmanager
    def _transaction(self, db: Connection) -> Iterator[Transaction]:
        """Make changes on `db`; all of them or, when the context is left by an error, none."""
        db.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        try:
            # Whoever holds this row has the turn to write.
            before = db.execute("SELECT sequence FROM state FOR UPDATE").fetchone()[0]
            change = Transaction(db, before)
            yield change
            if change.is_own:
                self._note_own(change)
            if change.has_changed:
                news.tell(change, self._self.gateway)
                self._listener.tell(db)
            change.note()
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _note_own(self, change: Transaction) -> None:
        me = self._self
        if not me.has_written:
            membership.enter(change.db, me.gateway, me.name, has_written=True)
        now = time.monotonic()
        if now >= me.moment + MOMENT:
            me.moment = now
            change.remember_moment()

    def _heartbeat(self, db: Connection) -> list[str]:
        me = self._self
        membership.enter(db, me.gateway, me.name, has_written=me.has_written)
        if me.is_crawling:
            membership.take_turn(db, me.gateway)
        return membership.others_gone(db)

    async def _settle(self) -> None:
        """Doubt what the index knows if a change of ours was not told, before it is asked."""
        if self._self.has_lost:
            await self._change(coverage.doubt)
            self._self.has_lost = False

    async def _catch_up(self) -> None:
        """Take up what others have told since we last looked."""
        known = self.generation
        current, told = await self._ask(lambda db: news.told_since(db, known))
        if current < known:
            log.warning("%s: has lost changes: listing anew", self._sessions.server.name)
            await self._change(lambda change: news.went_back(change, known))
            return
        news.take_up(self.changes, current, told, self._self.gateway)

    async def _farewell(self, word: Callable[[Connection], None]) -> None:
        with trio.move_on_after(FAREWELL, shield=True):
            try:
                await self._sessions.change(word, 0)
            except BackgateError as error:
                log.debug("left without a word: %s", error)

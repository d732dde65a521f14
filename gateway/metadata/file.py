"""The index file as a process has it open: two connections, one turn to write, counted changes."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backgate.gateway.metadata import schema
from backgate.gateway.metadata.database import Database

MOMENT = 1.0  # seconds from one remembered moment of own changes to the next


class Outdated(Exception):
    """A page was asked for before deletions that are no longer remembered: ask again."""


@contextmanager
def snapshot(db: Database) -> Iterator[None]:
    """Let all questions within the context be answered as of one moment."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


class Transaction:
    """Changes that become visible together, under one number."""

    def __init__(self, db: Database, before: int) -> None:
        self.db = db
        self.before = before  # the number of the change before it
        self.sequence = before + 1
        self.keys: list[bytes] = []  # what changed; directories by their prefix
        self.is_own = False  # it tells of something that this gateway did in the store
        self.horizon: int | None = None  # set: pages asked for up to there are refused
        self._objects = self._bytes = 0

    def changed(self, key: bytes, objects: int = 0, size: int = 0) -> None:
        """Note that `key` changed, and by how much the totals did."""
        self.keys.append(key)
        self._objects += objects
        self._bytes += size

    @property
    def has_changed(self) -> bool:
        """True when anything is not as it was before."""
        return bool(self.keys) or self.horizon is not None

    def remember_moment(self) -> None:
        """Write down that own changes up to this one were made by now."""
        self.db.execute(
            "INSERT INTO moment (sequence, at_ns) VALUES (?, ?)"
            " ON CONFLICT (sequence) DO UPDATE SET at_ns = excluded.at_ns",
            (self.sequence, time.time_ns()),
        )

    def note(self) -> None:
        """Write the number and the totals, when anything changed."""
        if not self.has_changed:
            return
        self.db.execute(
            "UPDATE state SET sequence = ?, objects = objects + ?, bytes = bytes + ?,"
            " horizon = coalesce(?, horizon)",
            (self.sequence, self._objects, self._bytes, self.horizon),
        )


class IndexFile:
    """One opening of the file. When it turns out to be damaged, another replaces it."""

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.front = schema.connect(path)  # trio's thread
        try:
            schema.prepare(self.front, first)
            self.behind = schema.connect(path)  # a worker's thread
        except sqlite3.Error:
            self.front.close()
            raise
        self.inode = schema.inode(path)
        self.is_closed = False
        self._turn = threading.Lock()  # spares waiting out SQLite's busy intervals in one process
        self._in_use = threading.Lock()  # the connection behind, without a turn to write
        self._id: int | None = None
        self._has_written = False
        self._moment = float("-inf")  # monotonic seconds; of the last one remembered

    def enter(self, boot: str) -> None:
        """Write down that this process has the index open."""
        cursor = self.front.execute("INSERT INTO opened (boot, has_written) VALUES (?, 0)", (boot,))
        self._id = cursor.lastrowid

    def close(self, *, is_clean: bool) -> None:
        """Close the connections; a clean close leaves nothing to doubt behind."""
        with self._turn, self._in_use:
            with suppress(sqlite3.Error):
                if is_clean:
                    self.behind.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    self.behind.execute("DELETE FROM opened WHERE id = ?", (self._id,))
            self.is_closed = True
            self.front.close()
            self.behind.close()

    def fold(self) -> None:
        """Fold the write-ahead log into the file; others go on writing meanwhile."""
        with self._in_use:
            self.behind.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    @contextmanager
    def transaction(self, db: sqlite3.Connection) -> Iterator[Transaction]:
        """Make changes on `db`; all of them or, when the context is left by an error, none."""
        with self._turn:
            db.execute("BEGIN IMMEDIATE")
            try:
                before = db.execute("SELECT sequence FROM state").fetchone()[0]
                change = Transaction(db, before)
                yield change
                moment = self._note_own(change) if change.is_own else self._moment
                change.note()
                db.execute("COMMIT")
                self._has_written, self._moment = self._has_written or change.is_own, moment
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _note_own(self, change: Transaction) -> float:
        """Note that this process changed the store, and once a second when; returns that moment."""
        if not self._has_written:
            change.db.execute("UPDATE opened SET has_written = 1 WHERE id = ?", (self._id,))
        now = time.monotonic()
        if now < self._moment + MOMENT:
            return self._moment
        change.remember_moment()
        return now

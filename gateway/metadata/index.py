"""The index: one SQLite file per repository, shared by processes, that mends itself.

Questions and small changes are answered on trio's thread, in microseconds; what takes longer is
done on a second connection in a worker thread. A file that is damaged, or of another version, is
replaced by an empty one: everything in it can be asked of the store again.
"""

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import trio

from backgate.gateway.errors import StoreError
from backgate.gateway.metadata import coverage, progress, schema
from backgate.gateway.metadata.changes import Changes
from backgate.gateway.metadata.file import IndexFile, Transaction

FILE = "index.sqlite"
LOCK = "index.lock"  # held shared by all who have the index open
FEW = 32  # rows; changing them takes as long as going to a thread and back
LOGGED = 8000  # rows written until the write-ahead log is folded: some MiB of it

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


def has_index(directory: Path) -> bool:
    """True when an earlier run has left an index in `directory`."""
    return (directory / FILE).exists()


class Index:
    """The index of the repository whose cache is in `directory`, for one process.

    A question is a function of a connection, a change one of a `Transaction`; both may be asked a
    second time, of an empty index, when the file turns out to be damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self.is_lone = False  # nobody else had it open when it was opened
        self.openings = 0  # grows when the file is replaced: what was read before counts no more
        self._boot = schema.boot_id()
        self._lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._version = 0  # SQLite's own count of what others wrote
        self._limiter = trio.CapacityLimiter(1)  # the connection behind is used by one at a time
        self._logged = 0  # rows written since the write-ahead log was folded
        try:
            self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Close the file; what was written is on the disk when this returns."""
        self._file.close(is_clean=True)
        os.close(self._lock)

    @property
    def generation(self) -> int:
        """The number of the last change that this process knows of."""
        return self.changes.generation

    def read(
        self, question: Callable[Concatenate[sqlite3.Connection, P], T], *a: P.args, **k: P.kwargs
    ) -> T:
        """Return the answer to a quick question; on trio's thread."""
        try:
            return question(self._file.front, *a, **k)
        except sqlite3.DatabaseError as error:
            self._mend(self._file, error)
            return question(self._file.front, *a, **k)

    def write(
        self, change: Callable[Concatenate[Transaction, P], T], *a: P.args, **k: P.kwargs
    ) -> T:
        """Make a small change; it is committed when this returns. On trio's thread."""
        try:
            with self._file.transaction(self._file.front) as transaction:
                result = change(transaction, *a, **k)
        except sqlite3.DatabaseError as error:
            self._mend(self._file, error)
            with self._file.transaction(self._file.front) as transaction:
                result = change(transaction, *a, **k)
        self._took(transaction)
        self._logged += 1
        return result

    async def write_behind(
        self,
        size: int,
        change: Callable[Concatenate[Transaction, P], T],
        *a: P.args,
        **k: P.kwargs,
    ) -> T:
        """Make a change of about `size` rows, in a thread if many; committed when this returns."""
        if size <= FEW:
            await trio.lowlevel.checkpoint()
            return self.write(change, *a, **k)
        file = self._file
        self._logged += size

        def run() -> tuple[Transaction, T]:
            with file.transaction(file.behind) as transaction:
                result = change(transaction, *a, **k)
            if self._logged > LOGGED:
                self._logged = 0
                file.fold()
            return transaction, result

        try:
            transaction, result = await trio.to_thread.run_sync(run, limiter=self._limiter)
        except sqlite3.DatabaseError as error:
            self._mend(file, error)
            return self.write(change, *a, **k)
        if file is not self._file:  # it was replaced meanwhile, and this change with it
            return self.write(change, *a, **k)
        self._took(transaction)
        return result

    async def read_behind(
        self, question: Callable[Concatenate[sqlite3.Connection, P], T], *a: P.args, **k: P.kwargs
    ) -> T:
        """Return the answer to a long question, asked in a thread on a connection of its own."""
        file = self._file

        def run() -> T:
            db = schema.connect(file.path)
            try:
                return question(db, *a, **k)
            finally:
                db.close()

        try:
            return await trio.to_thread.run_sync(run)
        except sqlite3.DatabaseError as error:
            self._mend(file, error)
            return self.read(question, *a, **k)

    def poll(self) -> None:
        """Look whether another process has changed the index, or replaced its file."""
        if schema.inode(self.path) != self._file.inode:
            log.warning("%s: was replaced by another process", self.path)
            self._reopen()
            return
        version = self.read(_data_version)
        if version != self._version:
            self._version = version
            sequence = self.read(coverage.sequence)
            if sequence != self.generation:
                self.changes.lost_track(sequence)

    async def fold(self) -> None:
        """Fold the write-ahead log into the file, when enough has been written since."""
        if self._logged > LOGGED:
            self._logged = 0
            self.write(coverage.forget_removed)
            file = self._file
            try:
                await trio.to_thread.run_sync(file.fold, limiter=self._limiter)
            except sqlite3.DatabaseError as error:
                self._mend(file, error)

    async def check(self) -> None:
        """Read the whole file for damage, in a thread, and replace it if there is any."""
        await self.read_behind(_quick_check)

    def _open(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.is_lone = True
        except BlockingIOError:
            fcntl.flock(self._lock, fcntl.LOCK_SH)
        self._open_file(_first())
        if self.is_lone:
            with self._file.transaction(self._file.front) as transaction:
                progress.judge_leftovers(transaction, self._boot)
        self._file.enter(self._boot)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        self.changes = Changes(coverage.sequence(self._file.front))
        self._version = _data_version(self._file.front)

    def _took(self, transaction: Transaction) -> None:
        if transaction.horizon is not None:
            self.changes.lost_track(transaction.sequence)
        elif transaction.keys:
            self.changes.took(transaction.before, transaction.sequence, transaction.keys)

    def _mend(self, file: IndexFile, error: sqlite3.DatabaseError) -> None:
        """Replace a damaged file, unless that has been done; raise what is not damage."""
        if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            raise error
        if getattr(error, "sqlite_errorname", "") in ("SQLITE_BUSY", "SQLITE_LOCKED"):
            raise StoreError(f"{self.path}: another process keeps the index busy") from error
        if file is not self._file:
            return
        if schema.inode(self.path) == file.inode:
            self._start_anew(error)
        self._reopen()

    def _reopen(self) -> None:
        """Open the file anew; what we wrote to the one before may not be in it."""
        self._file.close(is_clean=False)
        self._open_file(max(_first(), self.generation + 1))
        with self._file.transaction(self._file.front) as transaction:
            coverage.doubt(transaction)
        self._file.enter(self._boot)
        self.changes.lost_track(coverage.sequence(self._file.front))
        self._version = _data_version(self._file.front)

    def _open_file(self, first: int) -> None:
        self.openings += 1
        try:
            self._file = IndexFile(self.path, first)
        except sqlite3.DatabaseError as error:
            self._start_anew(error)
            try:
                self._file = IndexFile(self.path, first)
            except sqlite3.DatabaseError as again:
                raise StoreError(f"{self.path}: no index can be made: {again}") from again

    def _start_anew(self, error: sqlite3.DatabaseError) -> None:
        log.warning("%s: damaged, starting an empty index: %s", self.path, error)
        try:
            schema.remove(self.path)
        except OSError as again:
            raise StoreError(f"{self.path}: cannot be replaced: {again}") from again


def _first() -> int:
    """Where a new file begins to count: behind all numbers of the one before it."""
    return time.time_ns() // 1000


def _data_version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA data_version").fetchone()[0])


def _quick_check(db: sqlite3.Connection) -> None:
    result = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if result != "ok":
        raise sqlite3.DatabaseError(str(result))

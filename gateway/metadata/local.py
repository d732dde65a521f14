"""An index in a file: one of SQLite per repository, shared by processes, that mends itself.

Questions and small changes are answered on trio's thread, in microseconds; what takes longer is
done on a second connection in a worker thread. A file that is damaged is replaced by an empty one:
everything in it can be asked of the store again. On a disk that is full, listings have to wait and
own changes go into room kept back for them; after that into an empty index, here or elsewhere.
"""

import fcntl
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import trio

from backgate.gateway.errors import StoreError
from backgate.gateway.metadata import coverage, progress, schema
from backgate.gateway.metadata.changes import Changes
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.disk import Fault, Reserve, fault_of, refuge
from backgate.gateway.metadata.file import IndexFile, Transaction
from backgate.gateway.metadata.index import Change, P, Question, T
from backgate.gateway.metadata.turn import file_turn

FILE = f"index-{schema.VERSION}.sqlite"
LOCK = "index.lock"  # held shared by all who have the index open
TURN = "crawler.lock"  # held by the one process that crawls
FEW = 32  # rows; changing them takes as long as going to a thread and back
LOGGED = 8000  # rows written until the write-ahead log is folded: some MiB of it
LIVES = 4  # room in reserve, an empty file, one elsewhere, and once more for a busy neighbour
RETURN = 60.0  # seconds until the disk is tried again

log = logging.getLogger(__name__)


def has_index(directory: Path) -> bool:
    """True when an earlier run has left an index in `directory`."""
    return (directory / FILE).exists()


class LocalIndex:
    """The index of the repository whose cache is in `directory`, for one process.

    What was asked is asked again, of an empty index, when the file turns out to be of no use.
    """

    def __init__(self, directory: Path) -> None:
        self.home = directory
        self.path = directory / FILE  # elsewhere for as long as the disk is of no use
        self.is_lone = False  # nobody else had it open when it was opened
        self.openings = 0  # grows when the file is replaced: what was read before counts no more
        self.trouble: str | None = None  # what is wrong with the disk
        self._boot = schema.boot_id()
        self.changes = Changes(0)
        self._lock = _lock(directory / LOCK)
        self._reserve = Reserve(directory)
        self._is_emptied = False  # to make room: if that was not enough, nothing here is
        self._not_before = -float("inf")  # trio's time; when the disk is tried again
        self._version = 0  # SQLite's own count of what others wrote
        self._limiter = trio.CapacityLimiter(1)  # the connection behind is used by one at a time
        self._logged = 0  # rows written since the write-ahead log was folded
        try:
            self._open()
        except BaseException:
            os.close(self._lock)
            raise

    async def aclose(self) -> None:
        """Close the file; what was written is on the disk when this returns."""
        self._file.close(is_clean=True)
        os.close(self._lock)
        if self.path.parent != self.home:
            shutil.rmtree(self.path.parent, ignore_errors=True)

    def patient(self, patience: float) -> "LocalIndex":
        """Return this index: its file makes nobody wait."""
        return self

    @property
    def generation(self) -> int:
        """The number of the last change that this process knows of."""
        return self.changes.generation

    async def read(self, question: Question[P, T], *a: P.args, **k: P.kwargs) -> T:
        """Return the answer to a quick question; on trio's thread."""
        return self._whatever_it_takes(lambda: question(self._file.front, *a, **k))

    async def write(self, change: Change[P, T], *a: P.args, **k: P.kwargs) -> T:
        """Make a small change; it is committed when this returns. On trio's thread.

        Raises `StoreError` when the disk has no room for it: the store can be asked again.
        """
        try:
            return self._commit(change, *a, **k)
        except sqlite3.DatabaseError as error:
            self._mend_or_refuse(self._file, error)
            return self._commit(change, *a, **k)

    async def note(self, change: Change[P, T], *a: P.args, **k: P.kwargs) -> T:
        """Make a small change that must not be lost, for the store has made it too.

        Raises `StoreError` only when no index can be made anywhere.
        """
        return self._whatever_it_takes(lambda: self._commit(change, *a, **k))

    async def write_behind(
        self,
        size: int,
        change: Change[P, T],
        *a: P.args,
        **k: P.kwargs,
    ) -> T:
        """Make a change of about `size` rows, in a thread if many; as `write`."""
        if size <= FEW:
            await trio.lowlevel.checkpoint()
            return await self.write(change, *a, **k)
        file = self._file
        try:
            run = partial(self._commit_behind, file, size, change, *a, **k)
            transaction, result = await trio.to_thread.run_sync(run, limiter=self._limiter)
        except sqlite3.DatabaseError as error:
            self._mend_or_refuse(file, error)
            return await self.write(change, *a, **k)
        if file is not self._file:  # it was replaced meanwhile, and this change with it
            return await self.write(change, *a, **k)
        self._took(transaction)
        return result

    async def read_behind(self, question: Question[P, T], *a: P.args, **k: P.kwargs) -> T:
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
            if fault_of(error) is not Fault.DISK:  # it may be the connection that cannot be had
                self._mend(file, error)
            return await self.read(question, *a, **k)

    async def news(self, seconds: float) -> None:
        """Return in `seconds`; what others do is seen by looking."""
        await trio.sleep(seconds)

    async def poll(self) -> None:
        """Look what others have done: to the index, to its file, to the disk under it."""
        if schema.inode(self.path) != self._file.inode:
            log.warning("%s: was replaced by another process", self.path)
            self._reopen()
            return
        version = await self.read(_data_version)
        if version != self._version:
            self._version = version
            sequence = await self.read(coverage.sequence)
            if sequence != self.generation:
                self.changes.lost_track(sequence)
        if trio.current_time() >= self._not_before:
            self._not_before = trio.current_time() + RETURN
            if self._reserve.hold() and self.trouble is not None and self._reserve.has_room:
                self._recover()

    async def tidy(self, settled: int) -> None:
        """Forget old deletions and fold the write-ahead log into the file, if it is long."""
        if self._logged <= LOGGED:
            return
        await self.write(coverage.forget_removed, settled)
        self._logged = 0
        file = self._file
        try:
            await trio.to_thread.run_sync(file.fold, limiter=self._limiter)
        except sqlite3.DatabaseError as error:
            self._mend(file, error)

    async def check(self) -> None:
        """Read the whole file for damage, in a thread, and replace it if there is any."""
        await self.read_behind(_quick_check)

    async def size(self) -> int:
        """Return how many bytes the file and its log take."""
        return sum(schema.size(self.path, suffix) for suffix in ("", "-wal"))

    def turn(self) -> AbstractAsyncContextManager[bool]:
        """Try to be the one process of this machine that crawls."""
        return file_turn(self.home / TURN)

    def _open(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.is_lone = True
        except BlockingIOError:
            fcntl.flock(self._lock, fcntl.LOCK_SH)
        self._open_file(_first())
        if self.is_lone:
            schema.remove_others(self.path)
            self._whatever_it_takes(lambda: self._commit(progress.judge_leftovers, self._boot))
        self._whatever_it_takes(lambda: self._file.enter(self._boot))
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        self.changes = Changes(coverage.sequence(self._file.front))
        self._version = _data_version(self._file.front)

    def _whatever_it_takes(self, attempt: Callable[[], T]) -> T:
        for _ in range(LIVES):
            file = self._file
            try:
                return attempt()
            except sqlite3.DatabaseError as error:
                self._mend(file, error)
        return attempt()

    def _commit(self, change: Change[P, T], *a: P.args, **k: P.kwargs) -> T:
        with self._file.transaction(self._file.front) as transaction:
            result = change(transaction, *a, **k)
        self._took(transaction)
        self._logged += 1
        return result

    def _commit_behind(
        self,
        file: IndexFile,
        size: int,
        change: Change[P, T],
        *a: P.args,
        **k: P.kwargs,
    ) -> tuple[Transaction, T]:
        with file.transaction(file.behind) as transaction:
            result = change(transaction, *a, **k)
        self._logged += size
        if self._logged > LOGGED:
            self._logged = 0
            file.fold()
        return transaction, result

    def _took(self, transaction: Transaction) -> None:
        if transaction.horizon is not None:
            self.changes.lost_track(transaction.sequence)
        elif transaction.keys:
            self.changes.took(
                transaction.before,
                transaction.sequence,
                transaction.keys,
                is_own=transaction.is_own,
            )

    def _mend_or_refuse(self, file: IndexFile, error: sqlite3.DatabaseError) -> None:
        if fault_of(error) is Fault.DISK:
            self._note_trouble(error)
            raise StoreError(f"{self.path}: cannot be written: {error}") from error
        self._mend(file, error)

    def _mend(self, file: IndexFile, error: sqlite3.DatabaseError) -> None:
        """Do what helps against `error`, unless that has been done; raise where nothing does."""
        fault = fault_of(error)
        if file is not self._file:
            return
        if file.is_closed:  # and no other could be made when it was
            self._reopen()
            return
        if fault is Fault.BUG:
            raise error
        if fault is Fault.BUSY:
            raise StoreError(f"{self.path}: another process keeps the index busy") from error
        if fault is Fault.DISK:
            self._note_trouble(error)
            if self._reserve.release():
                return
        if schema.inode(self.path) == file.inode:
            self._start_anew(error, elsewhere=fault is Fault.DISK and self._is_emptied)
            self._is_emptied = fault is Fault.DISK
        self._reopen()

    def _note_trouble(self, error: sqlite3.DatabaseError) -> None:
        if self.trouble is None:
            log.warning("%s: the disk is of no use: %s", self.path, error)
        self.trouble = str(error)
        self._not_before = trio.current_time() + RETURN

    def _recover(self) -> None:
        """Come back to a disk that has room again."""
        log.info("%s: the disk can be used again", self.home)
        self.trouble, self._is_emptied = None, False
        if self.path.parent != self.home:
            left, self.path = self.path.parent, self.home / FILE
            schema.remove(self.path)  # it knows nothing of what was done since
            self._reopen()
            shutil.rmtree(left, ignore_errors=True)

    def _reopen(self) -> None:
        """Open the file anew; what we wrote to the one before may not be in it."""
        self._file.close(is_clean=False)
        self._open_file(max(_first(), self.generation + 1))
        self._whatever_it_takes(self._doubt)
        self._whatever_it_takes(lambda: self._file.enter(self._boot))
        self.changes.lost_track(coverage.sequence(self._file.front))
        self._version = _data_version(self._file.front)

    def _doubt(self) -> None:
        with self._file.transaction(self._file.front) as transaction:
            coverage.doubt(transaction)

    def _open_file(self, first: int) -> None:
        self.openings += 1
        for _ in range(LIVES):
            try:
                self._file = IndexFile(self.path, first)
            except sqlite3.DatabaseError as error:
                is_of_the_disk = fault_of(error) is Fault.DISK
                if not (is_of_the_disk and self._reserve.release()):
                    self._start_anew(error, elsewhere=is_of_the_disk)
            else:
                return
        raise StoreError(f"{self.path}: no index can be made")

    def _start_anew(self, error: sqlite3.DatabaseError, *, elsewhere: bool) -> None:
        log.warning("%s: of no use, starting an empty index: %s", self.path, error)
        try:
            if elsewhere:
                self._note_trouble(error)
                self.path = refuge() / FILE
            else:
                schema.remove(self.path)
        except OSError as again:
            raise StoreError(f"{self.path}: cannot be replaced: {again}") from again


def _lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: no index can be made: {error.strerror}") from error


def _first() -> int:
    """Where a new file begins to count: behind all numbers of the one before it."""
    return time.time_ns() // 1000


def _data_version(db: Database) -> int:
    return int(db.execute("PRAGMA data_version").fetchone()[0])


def _quick_check(db: Database) -> None:
    result = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if result != "ok":
        raise sqlite3.DatabaseError(str(result))

"""The tables of the index, and how its file is opened, recognised and made.

The tables, and all SQL outside this page, are what other databases understand too; their words for
types are another matter (`shared_schema.py`).
"""

import os
import sqlite3
from pathlib import Path

from backgate.gateway.metadata.database import Database

APPLICATION = 0x42475458  # "BGTX" in the file's header: this is an index of ours
VERSION = 2  # of the tables; each has a file of its own, so that two releases do not fight for one
BUSY = 10.0  # seconds that a change waits for one of another process
CACHE = 8 * 1024  # KiB of pages in memory, per connection

# `own` is the number of the own write that last touched a row, 0 when there was none: what was
# asked of the store before it does not undo it. `listed` is 1 once the store has confirmed the row.
# `mark` is the number of the last pass over a store without order that saw it.
TABLES = """
CREATE TABLE object (
    key BLOB PRIMARY KEY,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    etag TEXT NOT NULL,
    attributes BLOB,
    own INTEGER NOT NULL,
    listed INTEGER NOT NULL,
    mark INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Directories of which more is known than that keys begin with them. Those above one have rows too.
CREATE TABLE directory (
    prefix BLOB PRIMARY KEY,
    parent BLOB NOT NULL,
    listed_ns INTEGER,
    attributes BLOB,
    own INTEGER NOT NULL,
    mark INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX directory_parent ON directory (parent, prefix);

-- Disjoint intervals of keys in which flat pages have told everything.
CREATE TABLE covered (
    start BLOB PRIMARY KEY,
    stop BLOB NOT NULL,
    pass INTEGER NOT NULL,
    confirmed_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Own deletions, remembered for as long as an older page might bring the key back.
CREATE TABLE removed (
    key BLOB NOT NULL,
    is_directory INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (key, is_directory)
) STRICT, WITHOUT ROWID;
CREATE INDEX removed_sequence ON removed (sequence);

CREATE TABLE state (
    sequence INTEGER NOT NULL,
    horizon INTEGER NOT NULL, -- pages asked for before this change are refused
    epoch INTEGER NOT NULL, -- listings begun before this change establish nothing
    objects INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    passes INTEGER NOT NULL,
    ordering INTEGER NOT NULL, -- 0: seen to list out of order, 1: not so, 2: a pass was in order
    crawl_pass INTEGER,
    crawl_token TEXT,
    crawl_sequence INTEGER,
    crawl_settled INTEGER,
    crawl_begun_ns INTEGER,
    crawl_took_ns INTEGER,
    crawl_objects INTEGER NOT NULL,
    page_size INTEGER,
    pages INTEGER NOT NULL,
    timeouts INTEGER NOT NULL,
    requests INTEGER NOT NULL, -- listings asked for, with those for single names
    audited INTEGER NOT NULL,
    drifted INTEGER NOT NULL,
    last_error TEXT, -- of a listing, until one succeeds
    last_error_ns INTEGER
) STRICT;

-- When own changes were made, of those of one second the first: listings may not show them yet.
CREATE TABLE moment (
    sequence INTEGER PRIMARY KEY,
    at_ns INTEGER NOT NULL
) STRICT;
"""

# Who has the file open. What is left of one that is gone tells how it went.
_OPENED = """
CREATE TABLE opened (
    id INTEGER PRIMARY KEY,
    boot TEXT NOT NULL,
    has_written INTEGER NOT NULL
) STRICT
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open `path` for use from any thread, one at a time; transactions are begun by hand.

    A commit never waits for the disk: who writes has to fold the write-ahead log now and then.
    """
    db = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA cache_size = -{CACHE}")
        db.execute("PRAGMA wal_autocheckpoint = 0")
    except sqlite3.Error:
        db.close()
        raise
    return db


def prepare(db: sqlite3.Connection, first: int) -> None:
    """Make the tables in a new file, counting changes from `first`; check those of an old one.

    Raises `sqlite3.DatabaseError` when the file is not an index of this version.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        application = db.execute("PRAGMA application_id").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
        tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if not tables and not application:
            _make(db, first)
        elif (application, version) != (APPLICATION, VERSION):
            raise sqlite3.DatabaseError(f"version {version} of {application:#x}")
        if len(db.execute("SELECT * FROM state").fetchall()) != 1:
            raise sqlite3.DatabaseError("no state")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def remove(path: Path) -> None:
    """Remove the file and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def remove_others(path: Path) -> None:
    """Remove the indexes that other releases have left beside `path`."""
    for other in path.parent.glob("index*.sqlite"):
        if other.name != path.name:
            remove(other)


def boot_id() -> str:
    """Return what names this start of the machine: a power loss lies between two."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def inode(path: Path) -> int:
    """Return the inode of the file, 0 when it is gone."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def size(path: Path, suffix: str) -> int:
    """Return the bytes of what SQLite keeps beside `path` under `suffix`."""
    try:
        return os.stat(f"{path}{suffix}").st_size
    except FileNotFoundError:
        return 0


def _make(db: sqlite3.Connection, first: int) -> None:
    for statement in filter(str.strip, TABLES.split(";")):
        db.execute(statement)
    db.execute(_OPENED)
    fill(db, first)
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    db.execute(f"PRAGMA user_version = {VERSION}")


def fill(db: Database, first: int) -> None:
    """Write the rows of an index that knows nothing and counts its changes from `first` on."""
    db.execute(
        "INSERT INTO state (sequence, horizon, epoch, passes, objects, bytes, ordering,"
        " crawl_objects, pages, timeouts, requests, audited, drifted)"
        " VALUES (?, ?, ?, ?, 0, 0, 1, 0, 0, 0, 0, 0, 0)",
        (first, first, first, first),
    )
    db.execute(
        "INSERT INTO directory (prefix, parent, own, mark) VALUES (?, ?, 0, 0)", (b"", b"\xff")
    )

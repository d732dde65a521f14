"""The member index of one archive: a SQLite file, written once and then only read."""

import sqlite3
from pathlib import Path

from backgate.fs.formats.compression.firstpass import TABLES
from backgate.fs.formats.indexes import create_index

VERSION = 2  # part of the folder's name: another version of this code makes its own indexes
ROOT = 1  # the node of the top directory

_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value ANY) WITHOUT ROWID, STRICT;
CREATE TABLE nodes (
    node INTEGER PRIMARY KEY, mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,
    size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, atime_ns INTEGER, ctime_ns INTEGER,
    nlink INTEGER NOT NULL, rdev INTEGER NOT NULL, data INTEGER NOT NULL, target BLOB,
    is_sparse INTEGER NOT NULL, has_xattrs INTEGER NOT NULL
) STRICT;
CREATE TABLE names (
    parent INTEGER NOT NULL, name BLOB NOT NULL, node INTEGER NOT NULL,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID, STRICT;
CREATE TABLE extents (
    node INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL, data INTEGER NOT NULL,
    PRIMARY KEY (node, start)
) WITHOUT ROWID, STRICT;
CREATE TABLE xattrs (
    node INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (node, name)
) WITHOUT ROWID, STRICT;
CREATE TABLE left_out (at INTEGER PRIMARY KEY, path BLOB NOT NULL, reason TEXT NOT NULL) STRICT;
"""


def create(path: Path) -> sqlite3.Connection:
    """Create an empty index for one writer in a worker thread."""
    return create_index(path, _SCHEMA + TABLES)

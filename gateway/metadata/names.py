"""Answer for one key or one name, in one look-up each."""

from backgate.gateway.metadata import spans
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.rows import OBJECT, Known, Subdirectory, known, unpacked

_FILE, _BELOW, _DIRECTORY = range(3)

_NAME = f"""
    SELECT {_FILE}, {OBJECT} FROM object WHERE key = ?
    UNION ALL SELECT * FROM (
        SELECT {_BELOW}, {OBJECT} FROM object WHERE key >= ? AND key < ? ORDER BY key LIMIT 1
    ) AS below
    UNION ALL SELECT {_DIRECTORY}, prefix, 0, 0, '', attributes FROM directory WHERE prefix = ?
"""


def object_at(db: Database, key: bytes) -> Known | None:
    """Return the object `key`, None when the index has none."""
    row = db.execute(f"SELECT {OBJECT} FROM object WHERE key = ?", (key,)).fetchone()
    return known(row) if row else None


def named(db: Database, path: bytes) -> tuple[Known | None, Subdirectory | None]:
    """Return the file whose key is `path`, and the directory `path/`, as far as the index has them.

    A marker is no file: where `path` ends in "/", an empty object is only the directory's marker.
    """
    prefix = path + b"/"
    file, directory = None, None
    for kind, *row in db.execute(_NAME, (path, prefix, spans.end_of(prefix), prefix)):
        if kind == _FILE:
            file = None if is_marker(row[0], row[1]) else known(tuple(row))
        elif directory is None:
            is_about = kind == _DIRECTORY or (row[0] == prefix and is_marker(row[0], row[1]))
            directory = Subdirectory(spans.decoded(prefix), unpacked(row[4]) if is_about else None)
        elif kind == _DIRECTORY and row[4]:
            directory.attributes = unpacked(row[4])
    return file, directory


def is_marker(key: bytes, size: int) -> bool:
    """True when an object of `size` bytes only says that the directory `key` exists."""
    return size == 0 and key.endswith(b"/")


def has_below(db: Database, prefix: bytes) -> bool:
    """True when an object lies below `prefix`, or is its marker."""
    row = db.execute(
        "SELECT 1 FROM object WHERE key >= ? AND key < ? LIMIT 1", (prefix, spans.end_of(prefix))
    ).fetchone()
    return row is not None


def objects_below(db: Database, prefix: bytes, after: bytes, limit: int) -> list[Known]:
    """Return up to `limit` objects whose keys begin with `prefix`, ascending, behind `after`."""
    start = max(prefix, spans.successor(after) if after else prefix)
    rows = db.execute(
        f"SELECT {OBJECT} FROM object WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
        (start, spans.end_of(prefix), limit),
    )
    return [known(row) for row in rows]


def last_before(db: Database, prefix: bytes, stop: bytes) -> bytes | None:
    """Return the last key below `prefix` that sorts before `stop`."""
    row = db.execute(
        "SELECT key FROM object WHERE key >= ? AND key < ? ORDER BY key DESC LIMIT 1",
        (prefix, stop),
    ).fetchone()
    return row[0] if row else None


def middle(db: Database, start: bytes, stop: bytes, least: int) -> bytes | None:
    """Return a key halfway through those in `[start, stop)`; None when they are less than `least`.

    Reads half of them: in a thread.
    """
    within = "FROM object WHERE key >= ? AND key < ?"
    count = db.execute(f"SELECT count(*) {within}", (start, stop)).fetchone()[0]
    if count < least:
        return None
    row = db.execute(
        f"SELECT key {within} ORDER BY key LIMIT 1 OFFSET ?", (start, stop, count // 2)
    ).fetchone()
    return row[0] if row else None


def object_number(db: Database, number: int) -> Known | None:
    """Return the object that comes behind `number` others; in a thread, for it counts them."""
    row = db.execute(f"SELECT {OBJECT} FROM object ORDER BY key LIMIT 1 OFFSET ?", (number,))
    found = row.fetchone()
    return known(found) if found else None

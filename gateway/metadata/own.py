"""Changes that this gateway made in the store, and answers about single objects.

Each carries the number of its change, so that a page that was asked for earlier cannot undo it.
"""

from collections.abc import Iterable

from backgate.gateway.metadata import rows, spans
from backgate.gateway.metadata.file import Transaction
from backgate.gateway.provider import ObjectInfo

_Row = tuple[int, int, bytes | None, str, int, int]  # size, own, attributes, etag, mtime_ns, listed

_PUT = """
    INSERT INTO object (key, size, mtime_ns, etag, attributes, own, listed, mark)
    VALUES (?, ?, ?, ?, ?, ?, ?, 0)
    ON CONFLICT (key) DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns,
        etag = excluded.etag, attributes = excluded.attributes, own = excluded.own,
        listed = excluded.listed
"""


def stored(change: Transaction, info: ObjectInfo, attributes: bytes | None) -> None:
    """Note that this gateway stored an object."""
    change.is_own = True
    _put(change, info, attributes, own=change.sequence, listed=0)


def found(change: Transaction, info: ObjectInfo, attributes: bytes | None, asked: int) -> None:
    """Note what the store said of one object when it was asked at change `asked`.

    Attributes that the index has of the same version are newer than those in the store.
    """
    key = spans.encoded(info.key)
    row = _row(change, key)
    if row is not None and row[1] > asked:
        return
    if row is None and _was_removed(change, key, asked):
        return
    if row is not None and row[2] is not None and rows.is_same_version(info, *row[3:], row[0]):
        attributes = row[2]
    _put(change, info, attributes, own=row[1] if row else 0, listed=1)


def lost(change: Transaction, key: bytes, asked: int) -> None:
    """Note that the store, asked at change `asked`, had no object `key`."""
    row = _row(change, key)
    if row is not None and row[1] <= asked:
        change.db.execute("DELETE FROM object WHERE key = ?", (key,))
        change.changed(key, -1, -row[0])


def removed(change: Transaction, keys: Iterable[bytes]) -> None:
    """Note that this gateway deleted objects; the directories that they were in remain."""
    change.is_own = True
    for key in keys:
        row = _row(change, key)
        if row is not None:
            change.db.execute("DELETE FROM object WHERE key = ?", (key,))
        change.changed(key, -1 if row else 0, -row[0] if row else 0)
        _remember(change, key, is_directory=False)
        keep_directories(change, spans.parent_of(key) if key.endswith(b"/") else key)


def attributes_changed(change: Transaction, key: bytes, attributes: bytes) -> None:
    """Note attributes that are newer than those kept with the object."""
    change.is_own = True
    change.db.execute("UPDATE object SET attributes = ? WHERE key = ?", (attributes, key))
    change.changed(key)


def directory_made(
    change: Transaction, prefix: bytes, attributes: bytes | None, listed_ns: int
) -> None:
    """Note that this gateway made an empty directory: all names in it are known."""
    directory_changed(change, prefix, attributes)
    change.db.execute("UPDATE directory SET listed_ns = ? WHERE prefix = ?", (listed_ns, prefix))


def directory_changed(change: Transaction, prefix: bytes, attributes: bytes | None) -> None:
    """Note attributes of a directory, which exists."""
    change.is_own = True
    keep_directories(change, prefix)
    change.db.execute(
        "UPDATE directory SET attributes = ?, own = ? WHERE prefix = ?",
        (attributes, change.sequence, prefix),
    )
    change.changed(prefix)


def directory_removed(change: Transaction, prefix: bytes) -> None:
    """Note that this gateway removed an empty directory, with its marker."""
    change.is_own = True
    row = _row(change, prefix)
    if row is not None:
        change.db.execute("DELETE FROM object WHERE key = ?", (prefix,))
    change.db.execute(
        "DELETE FROM directory WHERE prefix >= ? AND prefix < ?", (prefix, spans.end_of(prefix))
    )
    change.changed(prefix, -1 if row else 0, -row[0] if row else 0)
    _remember(change, prefix, is_directory=False)
    _remember(change, prefix, is_directory=True)
    keep_directories(change, spans.parent_of(prefix))


def keep_directories(change: Transaction, key: bytes) -> bool:
    """Give the directories that `key` lies in rows of their own, so that they can be empty.

    Returns False when they all have them already.
    """
    count = 0
    for prefix in spans.directories_above(key):
        cursor = change.db.execute(
            "INSERT INTO directory (prefix, parent, own, mark) VALUES (?, ?, ?, 0)"
            " ON CONFLICT (prefix) DO NOTHING",
            (prefix, spans.parent_of(prefix), change.sequence if change.is_own else 0),
        )
        if cursor.rowcount == 0:
            break
        count += 1
    return count > 0


def _put(
    change: Transaction, info: ObjectInfo, attributes: bytes | None, *, own: int, listed: int
) -> None:
    key = spans.encoded(info.key)
    row = change.db.execute("SELECT size FROM object WHERE key = ?", (key,)).fetchone()
    change.db.execute(_PUT, (key, info.size, info.mtime_ns, info.etag, attributes, own, listed))
    change.changed(key, 0 if row else 1, info.size - (row[0] if row else 0))


def _row(change: Transaction, key: bytes) -> _Row | None:
    row: _Row | None = change.db.execute(
        "SELECT size, own, attributes, etag, mtime_ns, listed FROM object WHERE key = ?", (key,)
    ).fetchone()
    return row


def _was_removed(change: Transaction, key: bytes, asked: int) -> bool:
    row = change.db.execute(
        "SELECT 1 FROM removed WHERE key = ? AND is_directory = 0 AND sequence > ?", (key, asked)
    ).fetchone()
    return row is not None


def _remember(change: Transaction, key: bytes, *, is_directory: bool) -> None:
    change.db.execute(
        "INSERT INTO removed (key, is_directory, sequence) VALUES (?, ?, ?)"
        " ON CONFLICT (key, is_directory) DO UPDATE SET sequence = excluded.sequence",
        (key, int(is_directory), change.sequence),
    )

"""Let a page of a listing into the index.

A page of a store that lists in order covers the key interval from the last key before it to its own
last key: what the index had there and the page does not is deleted, and nothing else. Of a store
without order, a pass marks what it sees with its number and sweeps the rest only after it has ended
whole. Either way an own write, or an own deletion, that is newer than the question stays.

One call changes some hundred rows at most and returns where to go on: others write in between.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backgate.gateway.metadata import coverage, names, spans
from backgate.gateway.metadata.children import Row, read_level
from backgate.gateway.metadata.coverage import ROW
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.file import Transaction
from backgate.gateway.metadata.own import keep_directories
from backgate.gateway.metadata.rows import is_same_version
from backgate.gateway.provider import ObjectInfo

CHUNK = 500  # rows; some milliseconds, and the longest that an own write has to wait
LOOKED_AT = 10_000  # rows among which those to be swept are looked for; some milliseconds too
CLOSE = 3  # times as many rows as keys are read in one go; one by one takes longer

_INSERT = "INSERT INTO object VALUES (?, ?, ?, ?, NULL, 0, 1, ?)"
_UPDATE = "UPDATE object SET size = ?, mtime_ns = ?, etag = ?, listed = 1, mark = ? WHERE key = ?"
_FORGET = "UPDATE object SET attributes = NULL WHERE key = ?"

Item = tuple[bytes, ObjectInfo]


@dataclass(frozen=True, slots=True)
class Told:
    """What one page told: all names up to `stop`, as the store had them at change `asked`.

    Of what this gateway did it shows no more than up to change `settled`, maybe.
    """

    objects: Sequence[Item]  # ascending, where the store lists in order
    prefixes: Sequence[bytes]
    stop: bytes
    asked: int
    settled: int
    asked_ns: int  # nanoseconds since 1970
    number: int  # of the pass


def flat(change: Transaction, told: Told, at: bytes) -> bytes:
    """Let in the part of a flat page that begins at `at`; returns where the next part begins."""
    coverage.refuse_page(change.db, told.asked)
    rows: list[Row] = change.db.execute(
        f"SELECT {ROW} FROM object WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
        (at, told.stop, CHUNK),
    ).fetchall()
    stop = told.stop if len(rows) < CHUNK else spans.successor(rows[-1][0])
    _merge(change, rows, _between(told.objects, at, stop), told.settled)
    _prune(change, at, stop, told.settled)
    coverage.cover(change.db, at, stop, told.number, told.asked_ns)
    return stop


def level(change: Transaction, told: Told, prefix: bytes, at: bytes) -> bytes:
    """Let in the part of a page of the directory `prefix` that begins at `at`."""
    coverage.refuse_page(change.db, told.asked)
    known = read_level(change.db, prefix, at, told.stop, CHUNK)
    stop = known.stop or told.stop
    listed = [path for path in told.prefixes if at <= path < stop]
    for path in sorted(known.prefixes.keys() - set(listed)):
        if not _remove_below(change, path, told.settled):
            return at  # there is more of it
    _merge(change, known.objects, _between(told.objects, at, stop), told.settled)
    _add_directories(change, set(listed) - known.prefixes.keys(), told.settled)
    return stop


def marked(change: Transaction, told: Told) -> None:
    """Let in a page of a store without order; nothing is deleted."""
    coverage.refuse_page(change.db, told.asked)
    for first in range(0, len(told.objects), CHUNK):
        some = told.objects[first : first + CHUNK]
        _merge(change, _rows_of(change, some), some, told.settled, told.number)
    _add_directories(change, told.prefixes, told.settled)
    change.db.executemany(
        "UPDATE directory SET mark = ? WHERE prefix = ? AND mark < ?",
        [(told.number, prefix, told.number) for prefix in told.prefixes],
    )


def sweep(
    change: Transaction, at: bytes, stop: bytes, number: int, begun: int, settled: int
) -> bytes:
    """Delete what a whole pass begun at change `begun` did not see in some of `[at, stop)`."""
    coverage.refuse_listing(change.db, begun)
    last = change.db.execute(
        "SELECT key FROM object WHERE key >= ? AND key < ? ORDER BY key LIMIT 1 OFFSET ?",
        (at, stop, LOOKED_AT),
    ).fetchone()
    until = stop if last is None else last[0]
    rows = change.db.execute(
        "SELECT key, size FROM object WHERE key >= ? AND key < ? AND mark < ? AND own <= ?"
        " ORDER BY key LIMIT ?",
        (at, until, number, settled, CHUNK),
    ).fetchall()
    _delete(change, rows)
    until = until if len(rows) < CHUNK else spans.successor(rows[-1][0])
    _prune(change, at, until, settled)
    return until


def sweep_level(
    change: Transaction, prefix: bytes, at: bytes, number: int, begun: int, settled: int
) -> bytes:
    """Delete the names that a whole listing of the directory `prefix` did not show."""
    coverage.refuse_listing(change.db, begun)
    end = spans.end_of(prefix)
    known = read_level(change.db, prefix, at, end, CHUNK)
    _delete(change, [row[:2] for row in known.objects if row[7] < number and row[5] <= settled])
    query = "SELECT 1 FROM directory WHERE prefix = ? AND mark >= ?"
    for path in known.prefixes:
        is_seen = change.db.execute(query, (path, number)).fetchone() is not None
        if not is_seen and not _remove_below(change, path, settled):
            return at
    return known.stop or end


def flat_done(change: Transaction, prefix: bytes, number: int, begun: int, begun_ns: int) -> None:
    """Note that a whole pass over a store without order has told all keys below `prefix`."""
    coverage.refuse_listing(change.db, begun)
    coverage.cover(change.db, prefix, spans.end_of(prefix), number, begun_ns)


def level_done(change: Transaction, prefix: bytes, begun: int, settled: int, begun_ns: int) -> None:
    """Note that a listing of the directory `prefix` has ended: it is complete, or not there."""
    coverage.refuse_listing(change.db, begun)
    holds = names.has_below(change.db, prefix) or _has_directories(change, prefix)
    if not holds and prefix:
        _prune(change, prefix, spans.end_of(prefix), settled)  # unless we made it meanwhile
    elif not _is_removed(change, prefix, settled):
        keep_directories(change, prefix)
    change.db.execute("UPDATE directory SET listed_ns = ? WHERE prefix = ?", (begun_ns, prefix))


def _between(objects: Sequence[Item], start: bytes, stop: bytes) -> Sequence[Item]:
    first = bisect_left(objects, start, key=lambda item: item[0])
    return objects[first : bisect_left(objects, stop, key=lambda item: item[0])]


def missing(db: Database, told: Told, start: bytes) -> list[bytes]:
    """Return keys from `start` on that the index has and a flat page has not; some, if many."""
    listed = {key for key, _ in told.objects}
    rows = db.execute(
        "SELECT key FROM object WHERE key >= ? AND key < ? AND own <= ? ORDER BY key LIMIT ?",
        (start, told.stop, told.settled, LOOKED_AT),
    )
    return [key for (key,) in rows if key not in listed]


def _rows_of(change: Transaction, objects: Sequence[Item]) -> list[Row]:
    """Return the rows of these objects, by one question where they lie close together."""
    keys = [key for key, _ in objects]
    rows: list[Row] = change.db.execute(
        f"SELECT {ROW} FROM object WHERE key >= ? AND key <= ? ORDER BY key LIMIT ?",
        (min(keys), max(keys), CLOSE * len(keys)),
    ).fetchall()
    if len(rows) < CLOSE * len(keys):
        return rows
    query = f"SELECT {ROW} FROM object WHERE key = ?"
    found = (change.db.execute(query, (key,)).fetchone() for key in keys)
    return [row for row in found if row is not None]


def _merge(
    change: Transaction,
    rows: Iterable[Row],
    objects: Sequence[Item],
    asked: int,
    number: int | None = None,
) -> None:
    """Bring `rows` to what `objects` say; without a `number`, those not among them go."""
    known = {row[0]: row for row in rows}
    removed = _removed_since(change, objects, asked)
    added: list[tuple[bytes, int, int, str, int]] = []
    for key, info in objects:
        row = known.pop(key, None)
        if row is not None:
            _update(change, row, info, asked, number)
        elif key not in removed:
            added.append((key, info.size, info.mtime_ns, info.etag, number or 0))
            change.changed(key, 1, info.size)
    change.db.executemany(_INSERT, added)
    if number is None:
        _delete(change, [row[:2] for row in known.values() if row[5] <= asked])


def _update(
    change: Transaction, row: Row, info: ObjectInfo, asked: int, number: int | None
) -> None:
    key, size, mtime_ns, etag, attributes, own, listed, mark = row
    is_same = is_same_version(info, etag, mtime_ns, listed, size)
    is_known = is_same and listed and mtime_ns == info.mtime_ns
    if own > asked or (is_known and (number is None or mark >= number)):
        return
    values = (info.size, info.mtime_ns, info.etag, max(mark, number or 0), key)
    change.db.execute(_UPDATE, values)
    if not is_same and attributes is not None:
        change.db.execute(_FORGET, (key,))
    if not is_same or mtime_ns != info.mtime_ns:
        change.changed(key, 0, info.size - size)


def _removed_since(change: Transaction, objects: Sequence[Item], asked: int) -> set[bytes]:
    if not objects:
        return set()
    keys = [key for key, _ in objects]
    rows = change.db.execute(
        "SELECT key FROM removed WHERE key >= ? AND key <= ? AND is_directory = 0 AND sequence > ?",
        (min(keys), max(keys), asked),
    )
    return {key for (key,) in rows}


def _delete(change: Transaction, rows: Sequence[tuple[bytes, int]]) -> None:
    change.db.executemany("DELETE FROM object WHERE key = ?", [(key,) for key, _ in rows])
    for key, size in rows:
        change.changed(key, -1, -size)


def _remove_below(change: Transaction, prefix: bytes, asked: int) -> bool:
    """Delete a directory that the store did not name; False when a part of it is left for later."""
    rows = change.db.execute(
        "SELECT key, size FROM object WHERE key >= ? AND key < ? AND own <= ? LIMIT ?",
        (prefix, spans.end_of(prefix), asked, CHUNK),
    ).fetchall()
    _delete(change, rows)
    if len(rows) == CHUNK:
        return False
    _prune(change, prefix, spans.end_of(prefix), asked)
    return True


def _add_directories(change: Transaction, prefixes: Iterable[bytes], asked: int) -> None:
    for prefix in prefixes:
        if not _is_removed(change, prefix, asked) and keep_directories(change, prefix):
            change.changed(prefix)


def _has_directories(change: Transaction, prefix: bytes) -> bool:
    row = change.db.execute(
        "SELECT 1 FROM directory WHERE parent = ? LIMIT 1", (prefix,)
    ).fetchone()
    return row is not None


def _is_removed(change: Transaction, prefix: bytes, asked: int) -> bool:
    row = change.db.execute(
        "SELECT 1 FROM removed WHERE key = ? AND is_directory = 1 AND sequence > ?",
        (prefix, asked),
    ).fetchone()
    return row is not None


def _prune(change: Transaction, start: bytes, stop: bytes, asked: int) -> None:
    """Forget directories that end in `(start, stop]` and of which nothing is left."""
    above = [prefix for prefix in spans.directories_above(start) if prefix < start]
    at = start
    while True:
        within = change.db.execute(
            "SELECT prefix FROM directory WHERE prefix >= ? AND prefix < ? AND own <= ?"
            " ORDER BY prefix LIMIT ?",
            (at, stop, asked, CHUNK),
        ).fetchall()
        for prefix in [*above, *(row[0] for row in within)]:
            if prefix and spans.end_of(prefix) <= stop and not _is_alive(change, prefix, asked):
                change.db.execute("DELETE FROM directory WHERE prefix = ?", (prefix,))
                change.changed(prefix)
        if len(within) < CHUNK:
            return
        above, at = [], spans.successor(within[-1][0])


def _is_alive(change: Transaction, prefix: bytes, asked: int) -> bool:
    if names.has_below(change.db, prefix):
        return True
    row = change.db.execute(
        "SELECT 1 FROM directory WHERE prefix >= ? AND prefix < ? AND own > ? LIMIT 1",
        (prefix, spans.end_of(prefix), asked),
    ).fetchone()
    return row is not None

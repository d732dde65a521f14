"""What a directory holds, out of an index that is ordered by key and knows no directories.

Objects below a subdirectory lie between the names of its siblings. A few are read over; many are
jumped over, so that the work grows with the names that are shown and not with what lies below.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from backgate.gateway.keys import is_plain_name, name_beside, name_of
from backgate.gateway.metadata import names, spans
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.rows import Known, Subdirectory, is_file, known, unpacked

PAGE = 1000  # names read at a time where all are wanted
NONE = b"\xff"  # begins no key
READ_OVER = 4  # rows below one subdirectory; reading them costs as much as a new search

Row = tuple[bytes, int, int, str, bytes | None, int, int, int]
Child = tuple[str, Known | Subdirectory]

_WITHIN = "WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"
_OBJECT = "SELECT key, size, mtime_ns, etag, attributes, own, listed, mark FROM object"
_SCAN = f"{_OBJECT} {_WITHIN}"
# In the same places, without what no name needs: most of the time goes into making values.
_SCAN_NAMES = f"SELECT key, size, 0, '', attributes, 0, 0, 0 FROM object {_WITHIN}"
_ROWS = """
    SELECT prefix, attributes FROM directory
    WHERE parent = ? AND prefix >= ? AND prefix < ? ORDER BY prefix LIMIT ?
"""
_REMOVED = """
    SELECT key FROM removed
    WHERE key > ? AND key < ? AND is_directory = 0 AND sequence > ? ORDER BY key
"""


@dataclass(slots=True)
class Level:
    """Some of the names in one directory, ascending, as rows of the index."""

    objects: list[Row]
    prefixes: dict[bytes, bytes | None]  # of subdirectories, with their attributes
    stop: bytes | None  # there may be more from here on; None: these were all


def children(
    db: Database, prefix: str, start: bytes | None, limit: int
) -> tuple[list[Child], bytes | None]:
    """Return up to `limit` children of the directory `prefix`, and where to go on.

    Each has the name that it is shown under. The directory's own marker is not among them.
    """
    root = spans.encoded(prefix)
    level = read_level(db, root, start or root, spans.end_of(root), limit)
    shared, skip = _shared(db, level), len(prefix)
    found = [(row[0], _child(row, shared, skip)) for row in level.objects if not _is_own(row, root)]
    _add_directories(found, level, skip)
    return [child for _, child in found], level.stop


def listed(
    db: Database, prefix: str, start: bytes | None, limit: int
) -> tuple[list[Child | bytes], bytes | None]:
    """Return the same as `children`; of a file whose key ends with its very name, only that."""
    root = spans.encoded(prefix)
    level = read_level(db, root, start or root, spans.end_of(root), limit, _SCAN_NAMES)
    shared, skip, raw_skip = _shared(db, level), len(prefix), len(root)
    found: list[tuple[bytes, Child | bytes]] = []
    for row in level.objects:
        key, name = row[0], row[0][raw_skip:]
        if is_plain_name(name) and is_file(row[4]) and key not in shared:
            found.append((key, name))
        elif not _is_own(row, root):
            whole: Row = db.execute(f"{_OBJECT} WHERE key = ?", (key,)).fetchone()
            found.append((key, _child(whole, shared, skip)))
    spans.decoded(b"/".join(name for _, name in found if isinstance(name, bytes)))
    _add_directories(found, level, skip)
    return [child for _, child in found], level.stop


def read_level(
    db: Database, prefix: bytes, start: bytes, stop: bytes, limit: int, scan: str = _SCAN
) -> Level:
    """Return up to `limit` of the names in the directory `prefix` that lie in `[start, stop)`."""
    level = _read_objects(db, prefix, (start, stop), limit, scan)
    rows = db.execute(_ROWS, (prefix, start, level.stop or stop, limit)).fetchall()
    if not rows:
        return level
    merged: dict[bytes, bytes | None] = {}
    for path in sorted({*level.prefixes, *(path for path, _ in rows)}):
        merged[path] = level.prefixes.get(path)
    merged.update((path, attributes) for path, attributes in rows if attributes)
    level.prefixes = merged
    is_over = len(level.objects) + len(merged) > limit
    return _shortened(level, limit) if is_over or len(rows) == limit else level


def unsettled(
    db: Database, prefix: bytes, start: bytes, settled: int
) -> tuple[list[bytes], bytes | None]:
    """Return keys of files in the directory `prefix` that changes behind `settled` made, or, with
    the first of them, removed; and where to go on.
    """
    level = read_level(db, prefix, start, spans.end_of(prefix), PAGE)
    found = [row[0] for row in level.objects if row[5] > settled and row[0] != prefix]
    if start == prefix:
        rows = db.execute(_REMOVED, (prefix, spans.end_of(prefix), settled))
        found += [key for (key,) in rows if b"/" not in key[len(prefix) :]]
    return found, level.stop


def subdirectories(db: Database, prefix: bytes, limit: int) -> list[bytes] | None:
    """Return the prefixes of all directories in `prefix`; None when there are over `limit`."""
    found: list[bytes] = []
    at: bytes | None = prefix
    while at is not None:
        level = read_level(db, prefix, at, spans.end_of(prefix), limit + 1)
        found += level.prefixes
        if len(found) > limit:
            return None
        at = level.stop
    return found


def long_named(db: Database, prefix: str, name: str, beginning: str) -> str | None:
    """Return the component in the directory `prefix` that is shown as the abbreviated `name`."""
    root, first = spans.encoded(prefix), spans.encoded(prefix + beginning)
    at: bytes | None = first
    while at is not None:
        level = read_level(db, root, at, spans.end_of(first), PAGE)
        for path in [*(row[0] for row in level.objects), *level.prefixes]:
            component = spans.decoded(path)[len(prefix) :].removesuffix("/")
            if name in (name_of(component), name_beside(component)):
                return component
        at = level.stop
    return None


def _is_own(row: Row, root: bytes) -> bool:
    """True for the marker of the directory `root`, which is nothing in it."""
    return row[0] == root and not row[1]


def _child(row: Row, shared: set[bytes], skip: int) -> Child:
    one = known(row)
    component = one.info.key[skip:]
    return (name_beside(component) if row[0] in shared else name_of(component)), one


def _add_directories(
    found: list[tuple[bytes, Child]] | list[tuple[bytes, Child | bytes]], level: Level, skip: int
) -> None:
    for path, attributes in level.prefixes.items():
        text = spans.decoded(path)
        directory = Subdirectory(text, unpacked(attributes))
        found.append((path, (name_of(text[skip:-1]), directory)))
    if level.prefixes:
        found.sort(key=lambda one: one[0])


def _read_objects(
    db: Database, prefix: bytes, within: tuple[bytes, bytes], limit: int, scan: str
) -> Level:
    level = Level([], {}, None)
    objects, prefixes, skip = level.objects, level.prefixes, len(prefix)
    at: bytes | None
    at, stop = within
    while at is not None and at < stop:
        left = limit - len(objects) - len(prefixes)
        if left <= 0:
            level.stop = at
            break
        rows = db.execute(scan, (at, stop, left + READ_OVER))
        at = _read_some(rows, left + READ_OVER, skip, level, limit)
    return level


def _read_some(
    rows: Iterable[Row], asked: int, skip: int, level: Level, limit: int
) -> bytes | None:
    """Add what a query for `asked` rows gave; returns where to go on, None when nothing is left."""
    objects, prefixes = level.objects, level.prefixes
    below, over, count = NONE, 0, 0  # the subdirectory that is read over, and how far
    left = limit - len(objects) - len(prefixes)
    key = b""
    for row in rows:
        count += 1
        key = row[0]
        slash = key.find(b"/", skip)
        if slash < 0:
            objects.append(row)
            below = NONE
        elif key.startswith(below):
            over += 1
            if over == READ_OVER:
                return spans.end_of(below)
            continue
        else:
            below, over = key[: slash + 1], 0
            is_marker = slash + 1 == len(key) and not row[1]
            prefixes[below] = row[4] if is_marker else None
        left -= 1
        if left == 0:
            return spans.successor(key) if slash < 0 else spans.end_of(below)
    if count < asked:
        return None
    return spans.successor(key) if below == NONE else spans.end_of(below)


def _shortened(level: Level, limit: int) -> Level:
    """Cut a level to `limit` names."""
    paths = sorted([*(row[0] for row in level.objects), *level.prefixes])[:limit]
    last = paths[-1]
    stop = spans.end_of(last) if last in level.prefixes else spans.successor(last)
    return Level(
        [row for row in level.objects if row[0] < stop],
        {path: about for path, about in level.prefixes.items() if path < stop},
        stop,
    )


def _shared(db: Database, level: Level) -> set[bytes]:
    """Return the objects of `level` whose name a directory has, in it or behind it."""
    shared = {path[:-1] for path in level.prefixes}
    if level.stop is None:
        return shared
    candidates = [row[0] for row in level.objects if level.stop.startswith(row[0])]
    return shared | {key for key in candidates if names.named(db, key)[1] is not None}

"""What a directory holds, out of an index that is ordered by key and knows no directories.

Objects below a subdirectory lie between the names of its siblings. A few are read over; many are
jumped over, so that the work grows with the names that are shown and not with what lies below.
"""

from dataclasses import dataclass

from backgate.gateway.keys import name_beside, name_of
from backgate.gateway.metadata import names, spans
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.rows import Known, Subdirectory, known, unpacked

PAGE = 1000  # names read at a time where all are wanted
NONE = b"\xff"  # begins no key
READ_OVER = 4  # rows below one subdirectory; reading them costs as much as a new search

Row = tuple[bytes, int, int, str, bytes | None, int, int, int]
Child = tuple[str, Known | Subdirectory]

_SCAN = """
    SELECT key, size, mtime_ns, etag, attributes, own, listed, mark FROM object
    WHERE key >= ? AND key < ? ORDER BY key LIMIT ?
"""
_ROWS = """
    SELECT prefix, attributes FROM directory
    WHERE parent = ? AND prefix >= ? AND prefix < ? ORDER BY prefix LIMIT ?
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
    shared = {path[:-1] for path in level.prefixes} | _shared_further_on(db, level)
    found: list[tuple[bytes, Child]] = []
    skip = len(prefix)
    for row in level.objects:
        if row[0] == root and not row[1]:
            continue
        one = known(row)
        component = one.info.key[skip:]
        name = name_beside(component) if row[0] in shared else name_of(component)
        found.append((row[0], (name, one)))
    for path, attributes in level.prefixes.items():
        text = spans.decoded(path)
        directory = Subdirectory(text, unpacked(attributes))
        found.append((path, (name_of(text[skip:-1]), directory)))
    if level.prefixes:
        found.sort(key=lambda one: one[0])
    return [child for _, child in found], level.stop


def read_level(db: Database, prefix: bytes, start: bytes, stop: bytes, limit: int) -> Level:
    """Return up to `limit` of the names in the directory `prefix` that lie in `[start, stop)`."""
    level = _read_objects(db, prefix, start, stop, limit)
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


def _read_objects(db: Database, prefix: bytes, start: bytes, stop: bytes, limit: int) -> Level:
    level = Level([], {}, None)
    objects, prefixes, skip = level.objects, level.prefixes, len(prefix)
    at: bytes | None = start
    while at is not None and at < stop:
        left = limit - len(objects) - len(prefixes)
        if left <= 0:
            level.stop = at
            break
        at = _read_some(db, (at, stop, left + READ_OVER), skip, level, limit)
    return level


def _read_some(
    db: Database,
    question: tuple[bytes, bytes, int],
    skip: int,
    level: Level,
    limit: int,
) -> bytes | None:
    """Add what one query gives; returns where to go on, None when nothing is left."""
    objects, prefixes = level.objects, level.prefixes
    below, over, count = NONE, 0, 0  # the subdirectory that is read over, and how far
    left = limit - len(objects) - len(prefixes)
    key = b""
    for row in db.execute(_SCAN, question):
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
    if count < question[2]:
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


def _shared_further_on(db: Database, level: Level) -> set[bytes]:
    """Return the objects of `level` whose name a directory has that comes behind it."""
    if level.stop is None:
        return set()
    candidates = [row[0] for row in level.objects if level.stop.startswith(row[0])]
    return {key for key in candidates if names.named(db, key)[1] is not None}

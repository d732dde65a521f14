"""What the index knows completely, since when, and what makes it doubt that.

A directory is complete when a listing of its own level has ended (`directory.listed_ns`), or when
flat pages have covered every key below it (`covered`). Each page of a pass adds the interval it
told, so a crawl that was interrupted goes on at the first gap that is left.
"""

from backgate.gateway.metadata import spans
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.file import Outdated, Transaction

REMEMBERED = 50_000  # own deletions; an older page than the last forgotten one is asked for again

REFUTED, CLAIMED, PROVEN = range(3)  # what is known of the order in which the store lists
ROW = "key, size, mtime_ns, etag, attributes, own, listed, mark"  # of the table of objects

Interval = tuple[bytes, bytes, int, int]  # start, stop, number of the pass, confirmed_ns


def sequence(db: Database) -> int:
    """Return the number of the last change: what is asked of the store now is newer."""
    return int(db.execute("SELECT sequence FROM state").fetchone()[0])


def level_confirmed(db: Database, prefix: bytes) -> int | None:
    """Return when all names in the directory `prefix` were confirmed; None when they never were."""
    return _confirmed(db, prefix, prefix, spans.end_of(prefix))


def name_confirmed(db: Database, parent: bytes, path: bytes) -> int | None:
    """Return when it was confirmed what `path` and `path/` are in `parent`; None: never."""
    return _confirmed(db, parent, path, spans.end_of(path + b"/"))


def span_confirmed(db: Database, start: bytes, stop: bytes) -> int | None:
    """Return when all keys in `[start, stop)` were confirmed at the latest; None: not all."""
    at, oldest = start, None
    for first, last, _, confirmed_ns in _touching(db, start, stop):
        if last <= start or first >= stop:
            continue
        if first > at:
            return None
        at, oldest = last, confirmed_ns if oldest is None else min(oldest, confirmed_ns)
    return oldest if at >= stop else None


def gap(db: Database, start: bytes, stop: bytes, since: int) -> bytes | None:
    """Return where in `[start, stop)` the first key lies that no pass numbered `since` told of."""
    for first, last, number, _ in _touching(db, start, stop):
        if start >= stop or first > start:
            break
        if last > start:
            if number < since:
                break
            start = last
    return start if start < stop else None


def cover(db: Database, start: bytes, stop: bytes, number: int, confirmed_ns: int) -> None:
    """Note that pass `number` told all keys in `[start, stop)`."""
    if start >= stop:
        return
    for first, last, other, other_ns in _touching(db, start, stop):
        db.execute("DELETE FROM covered WHERE start = ?", (first,))
        if other == number:
            start, stop = min(start, first), max(stop, last)
            confirmed_ns = min(confirmed_ns, other_ns)
            continue
        if first < start:
            _put(db, (first, start, other, other_ns))
        if last > stop:
            _put(db, (stop, last, other, other_ns))
    _put(db, (start, stop, number, confirmed_ns))


def doubt(change: Transaction) -> None:
    """Keep what is known, but count nothing as complete; no page asked for so far is taken."""
    change.db.execute("DELETE FROM covered")
    change.db.execute("UPDATE directory SET listed_ns = NULL")
    change.db.execute("UPDATE state SET crawl_pass = NULL, crawl_token = NULL")
    change.db.execute("UPDATE state SET epoch = ?", (change.sequence,))
    change.horizon = change.sequence


def refuse_page(db: Database, asked: int) -> None:
    """Raise `Outdated` when a page asked for at change `asked` might undo what is forgotten."""
    if asked < db.execute("SELECT horizon FROM state").fetchone()[0]:
        raise Outdated


def refuse_listing(db: Database, begun: int) -> None:
    """Raise `Outdated` when the first pages of a listing begun at change `begun` are in doubt."""
    if begun < epoch(db):
        raise Outdated


def epoch(db: Database) -> int:
    """Return the change at which all that counted as complete was last doubted."""
    return int(db.execute("SELECT epoch FROM state").fetchone()[0])


def ordering(db: Database) -> int:
    """Return what listings have shown so far of the order in which the store lists."""
    return int(db.execute("SELECT ordering FROM state").fetchone()[0])


def prove_order(change: Transaction) -> None:
    """Note that a whole pass was in order, unless another has shown that the store has none."""
    change.db.execute("UPDATE state SET ordering = ? WHERE ordering = ?", (PROVEN, CLAIMED))


def refute_order(change: Transaction) -> None:
    """Note that the store does not list in order; nothing has relied on it so far."""
    change.db.execute("UPDATE state SET ordering = ?", (REFUTED,))


def distrust_order(change: Transaction) -> None:
    """Note that the store does not list in order: what its pages seemed to tell is in doubt."""
    change.db.execute("UPDATE state SET ordering = ?", (REFUTED,))
    doubt(change)


def forget_all(change: Transaction, settled: int) -> None:
    """Empty the index, but for own writes behind change `settled`: no listing may show them yet."""
    kept = change.db.execute(f"SELECT {ROW} FROM object WHERE own > ?", (settled,)).fetchall()
    for table in ("object", "directory", "covered"):
        change.db.execute(f"DELETE FROM {table}")
    change.db.execute("DELETE FROM removed WHERE sequence <= ?", (settled,))
    change.db.executemany(f"INSERT INTO object ({ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", kept)
    change.db.execute(
        "INSERT INTO directory (prefix, parent, own, mark) VALUES (?, ?, 0, 0)", (b"", spans.END)
    )
    total = sum(row[1] for row in kept)
    change.db.execute("UPDATE state SET objects = ?, bytes = ?", (len(kept), total))
    doubt(change)


def forget_removed(change: Transaction, settled: int) -> None:
    """Forget the oldest of very many own deletions, and moments that are long past."""
    row = change.db.execute(
        "SELECT sequence FROM removed WHERE sequence <= ? ORDER BY sequence DESC LIMIT 1 OFFSET ?",
        (settled, REMEMBERED),
    ).fetchone()
    if row is not None:
        change.db.execute("DELETE FROM removed WHERE sequence <= ?", row)
        horizon = "UPDATE state SET horizon = CASE WHEN horizon < ? THEN ? ELSE horizon END"
        change.db.execute(horizon, row * 2)
    change.db.execute(
        "DELETE FROM moment WHERE sequence <"
        " (SELECT max(sequence) FROM moment WHERE sequence <= ?)",
        (settled,),
    )


def _confirmed(db: Database, prefix: bytes, start: bytes, stop: bytes) -> int | None:
    """Return the later of: the directory's own level was listed, and flat pages told the span."""
    row = db.execute("SELECT listed_ns FROM directory WHERE prefix = ?", (prefix,)).fetchone()
    times = (row[0] if row else None, span_confirmed(db, start, stop))
    return max((time for time in times if time is not None), default=None)


def _touching(db: Database, start: bytes, stop: bytes) -> list[Interval]:
    """Return the intervals that overlap `[start, stop)` or meet it, in order."""
    before = db.execute(
        "SELECT start, stop, pass, confirmed_ns FROM covered WHERE start < ?"
        " ORDER BY start DESC LIMIT 1",
        (start,),
    ).fetchall()
    within: list[Interval] = db.execute(
        "SELECT start, stop, pass, confirmed_ns FROM covered WHERE start >= ? AND start <= ?"
        " ORDER BY start",
        (start, stop),
    ).fetchall()
    return [one for one in before if one[1] >= start] + within


def _put(db: Database, interval: Interval) -> None:
    db.execute(
        "INSERT INTO covered (start, stop, pass, confirmed_ns) VALUES (?, ?, ?, ?)", interval
    )

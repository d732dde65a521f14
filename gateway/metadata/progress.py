"""How far the pass over everything has come, and how listings have gone; for all processes."""

from dataclasses import dataclass

from backgate.gateway.metadata import coverage
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.file import Transaction


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass over everything that is due, or was interrupted."""

    number: int
    token: str | None  # where it stopped, in a store without order
    begun: int  # the last change when it began
    settled: int  # the last change that its pages are sure to show
    begun_ns: int  # nanoseconds since 1970


@dataclass(frozen=True, slots=True)
class Progress:
    """The row of the state that people ask about."""

    objects: int
    bytes: int
    pages: int
    timeouts: int
    page_size: int | None  # keys; None: no page has been asked for yet
    ordering: int  # what `coverage.ordering` says
    is_due: int  # 1: a pass over everything is due or under way
    crawl_objects: int  # that this pass has seen
    took_ns: int | None  # how long the last whole pass took
    requests: int  # listings asked for, with those for single names
    audited: int  # objects that were compared with the store
    drifted: int  # of them, those that were not as the index had them
    last_error: str | None  # of a listing, until one succeeds
    last_error_ns: int | None


def new_pass(change: Transaction) -> int:
    """Return a number for a pass, higher than those of all passes before it."""
    change.db.execute("UPDATE state SET passes = passes + 1")
    return int(change.db.execute("SELECT passes FROM state").fetchone()[0])


def judge_leftovers(change: Transaction, boot: str) -> None:
    """Doubt what those who did not close the index may have left behind.

    After a power loss the last changes may be missing. After a crash of the process alone they are
    all here, but one that the store acknowledged in that instant may not be: a pass will find it.
    """
    left = change.db.execute("SELECT boot, has_written FROM opened").fetchall()
    change.db.execute("DELETE FROM opened")
    if any(has_written and other != boot for other, has_written in left):
        coverage.doubt(change)
    elif any(has_written for _, has_written in left):
        begin_crawl(change)


def begin_crawl(change: Transaction) -> int:
    """Make it so that a pass over everything is due, and return its number."""
    number = new_pass(change)
    change.db.execute(
        "UPDATE state SET crawl_pass = ?, crawl_token = NULL, crawl_objects = 0,"
        " crawl_sequence = NULL, crawl_settled = NULL, crawl_begun_ns = NULL",
        (number,),
    )
    return number


def due(db: Database) -> bool:
    """True when a pass over everything was begun and has not ended."""
    return db.execute("SELECT crawl_pass FROM state").fetchone()[0] is not None


def is_due(db: Database, number: int) -> bool:
    """True when the pass `number` over everything, or a later one, has not ended."""
    row = db.execute("SELECT crawl_pass FROM state WHERE crawl_pass >= ?", (number,)).fetchone()
    return row is not None


def resumed(change: Transaction, settled: int, now_ns: int) -> Pass:
    """Return the pass that is due, begun at this moment unless it was interrupted."""
    query = (
        "SELECT crawl_pass, crawl_token, crawl_sequence, crawl_settled, crawl_begun_ns FROM state"
    )
    number, token, begun, its_settled, begun_ns = change.db.execute(query).fetchone()
    if number is None:
        number, begun = begin_crawl(change), None
    if begun is None:
        begun, its_settled, begun_ns = change.before, min(settled, change.before), now_ns
        change.db.execute(
            "UPDATE state SET crawl_sequence = ?, crawl_settled = ?, crawl_begun_ns = ?",
            (begun, its_settled, begun_ns),
        )
    return Pass(number, token, begun, its_settled, begun_ns)


def page_told(change: Transaction, page_size: int, number: int, objects: int) -> None:
    """Count a page, of `objects` keys, that the pass `number` was told."""
    change.db.execute(
        "UPDATE state SET pages = pages + 1, page_size = ?,"
        " crawl_objects = crawl_objects + CASE WHEN crawl_pass = ? THEN ? ELSE 0 END",
        (page_size, number, objects),
    )


def page_failed(change: Transaction, page_size: int) -> None:
    """Count a page that the store did not give, and what is asked for instead."""
    change.db.execute("UPDATE state SET timeouts = timeouts + 1, page_size = ?", (page_size,))


def reached(change: Transaction, number: int, token: str | None) -> None:
    """Remember where the pass `number` goes on in a store without order."""
    change.db.execute("UPDATE state SET crawl_token = ? WHERE crawl_pass = ?", (token, number))


def crawl_ended(change: Transaction, number: int, now_ns: int) -> None:
    """Note that the pass `number` has told everything."""
    change.db.execute(
        "UPDATE state SET crawl_pass = NULL, crawl_token = NULL,"
        " crawl_took_ns = CASE WHEN ? > crawl_begun_ns THEN ? - crawl_begun_ns ELSE 0 END"
        " WHERE crawl_pass = ?",
        (now_ns, now_ns, number),
    )


def requested(change: Transaction, count: int) -> None:
    """Count listings that were asked for."""
    change.db.execute("UPDATE state SET requests = requests + ?", (count,))


def failed(change: Transaction, reason: str, now_ns: int) -> None:
    """Note why a listing has failed."""
    change.db.execute("UPDATE state SET last_error = ?, last_error_ns = ?", (reason, now_ns))


def succeeded(change: Transaction) -> None:
    """Note that a listing has succeeded again."""
    change.db.execute("UPDATE state SET last_error = NULL, last_error_ns = NULL")


def compared(change: Transaction, audited: int, drifted: int) -> None:
    """Count objects that were compared with the store."""
    change.db.execute(
        "UPDATE state SET audited = audited + ?, drifted = drifted + ?", (audited, drifted)
    )


def progress(db: Database) -> Progress:
    """Return what the state tells."""
    row = db.execute(
        "SELECT objects, bytes, pages, timeouts, page_size, ordering,"
        " CASE WHEN crawl_pass IS NULL THEN 0 ELSE 1 END, crawl_objects, crawl_took_ns,"
        " requests, audited, drifted, last_error, last_error_ns FROM state"
    ).fetchone()
    return Progress(*row)

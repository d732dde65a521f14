"""Which gateways have a shared index open, and which one of them crawls.

A gateway that has not been heard of for some seconds is gone: another takes its turn to crawl, and
if it has changed the store, everything is listed again, for the last change may not have been told.
All times are the database's, so that the gateways' clocks do not matter.
"""

from backgate.gateway.metadata import progress
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.file import Transaction

ALIVE = 15  # seconds that a gateway counts as alive without a word of it
BEAT = 4.0  # seconds from one word to the next: two may get lost

_UNTIL = f"now() + interval '{ALIVE} seconds'"


def enter(db: Database, gateway: int, name: str, *, has_written: bool) -> None:
    """Say that this gateway has the index open."""
    db.execute(
        f"INSERT INTO gateway (id, name, has_written, until) VALUES (?, ?, ?, {_UNTIL})"
        " ON CONFLICT (id) DO UPDATE SET until = excluded.until, has_written ="
        " CASE WHEN gateway.has_written = 1 THEN 1 ELSE excluded.has_written END",
        (gateway, name, int(has_written)),
    )


def leave(db: Database, gateway: int) -> None:
    """Say that this gateway has ended well."""
    db.execute("DELETE FROM gateway WHERE id = ?", (gateway,))


def others_gone(db: Database) -> list[str]:
    """Return the names of gateways that have not been heard of for too long."""
    rows = db.execute("SELECT name FROM gateway WHERE until < now() ORDER BY name")
    return [name for (name,) in rows]


def judge(change: Transaction) -> None:
    """Forget gateways that are gone, and list everything again if they have changed the store."""
    left = change.db.execute("SELECT id, has_written FROM gateway WHERE until < now()").fetchall()
    for gateway, _ in left:
        change.db.execute("DELETE FROM gateway WHERE id = ?", (gateway,))
    if any(has_written for _, has_written in left):
        progress.begin_crawl(change)


def take_turn(db: Database, gateway: int) -> bool:
    """Take the turn to crawl, or keep it; False while another gateway has it."""
    cursor = db.execute(
        f"UPDATE turn SET holder = ?, until = {_UNTIL} WHERE id = 1"
        " AND (holder = ? OR until < now())",
        (gateway, gateway),
    )
    return cursor.rowcount > 0


def end_turn(db: Database, gateway: int) -> None:
    """Let another gateway crawl."""
    db.execute("UPDATE turn SET holder = 0, until = now() WHERE holder = ?", (gateway,))

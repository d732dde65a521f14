"""What gateways over one shared index tell each other: which keys each change concerned."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from backgate.gateway.metadata import coverage
from backgate.gateway.metadata.changes import Changes
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.file import Transaction, snapshot

ITEMISED = 100  # keys of one change; more are told as "very many"
TOLD = 10_000  # changes that are remembered for who was away, and rows that are read at a time


@dataclass(frozen=True, slots=True)
class Told:
    """One key that a change concerned."""

    sequence: int
    gateway: int
    is_own: bool  # the gateway did it in the store, and did not find it there
    key: bytes | None  # None: unknown, or very many


def tell(change: Transaction, gateway: int) -> None:
    """Write down which keys `change` concerns."""
    keys: Sequence[bytes | None] = [None]
    if change.horizon is None and len(change.keys) <= ITEMISED:
        keys = change.keys
    change.db.executemany(
        "INSERT INTO news (sequence, part, gateway, is_own, key) VALUES (?, ?, ?, ?, ?)",
        [
            (change.sequence, part, gateway, int(change.is_own), key)
            for part, key in enumerate(keys)
        ],
    )


def told_since(db: Database, sequence: int) -> tuple[int, list[Told]]:
    """Return the number of the last change, and what was told of those behind `sequence`."""
    with snapshot(db):
        rows = db.execute(
            "SELECT sequence, gateway, is_own, key FROM news WHERE sequence > ?"
            " ORDER BY sequence, part LIMIT ?",
            (sequence, TOLD),
        ).fetchall()
        found = [Told(number, gateway, bool(is_own), key) for number, gateway, is_own, key in rows]
        return coverage.sequence(db), found


def take_up(changes: Changes, current: int, told: Sequence[Told], gateway: int) -> None:
    """Bring what `gateway` knows up to change `current`, by what it was told of those before."""
    new = [one for one in told if one.sequence > changes.generation]
    numbers = list(dict.fromkeys(one.sequence for one in new))
    is_whole = numbers == list(range(changes.generation + 1, current + 1))
    if not is_whole or any(one.key is None for one in new):
        if current > changes.generation:
            changes.lost_track(current)
        return
    for number, group in groupby(new, key=lambda one: one.sequence):
        some = list(group)
        keys = [one.key for one in some if one.key is not None]
        is_own = some[0].is_own and some[0].gateway == gateway
        changes.took(number - 1, number, keys, is_own=is_own)


def forget(change: Transaction) -> None:
    """Forget what was told long ago."""
    change.db.execute("DELETE FROM news WHERE sequence < ?", (change.before - TOLD,))


def went_back(change: Transaction, known: int) -> None:
    """Doubt everything: the database has lost changes, for change `known` had been made."""
    change.sequence = max(change.sequence, known + 1)
    coverage.doubt(change)

"""Which changes a listing is sure to show: in a store that is slow to agree, not the latest ones.

What this gateway wrote or deleted itself is believed over a listing for the store's grace time. So
a page counts as if it had been asked for that much earlier.
"""

import time
from collections import deque
from collections.abc import Iterable

import trio

from backgate.gateway.metadata import coverage
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.index import Index
from backgate.gateway.units import SECOND_NS

STEP = 1.0  # seconds between two moments that are told apart


class Settling:
    """Knows of the changes of an index which were made at least `grace` seconds ago."""

    def __init__(self, grace: float, remembered: Iterable[tuple[float, int]] = ()) -> None:
        self._grace = grace
        self._moments = deque(remembered)  # trio's time, the last change by then

    def settled(self, asked: int) -> int:
        """Return the last change that a listing asked for now shows, `asked` being the last."""
        if not self._grace:
            return asked
        now = trio.current_time()
        if not self._moments or self._moments[-1][0] <= now - STEP:
            self._moments.append((now, asked))
        while len(self._moments) > 1 and self._moments[1][0] <= now - self._grace:
            self._moments.popleft()
        at, change = self._moments[0]
        return min(change, asked) if at <= now - self._grace else 0


async def opened_settling(index: Index, grace: float) -> Settling:
    """Return what knows of the changes of `index`, those of an earlier process among them.

    What it noted at a time that is still to come counts as noted now.
    """
    if not grace:
        return Settling(grace)
    now, now_ns = trio.current_time(), time.time_ns()
    rows = await index.read(_moments)
    ages = [(max(0.0, (now_ns - at_ns) / SECOND_NS), change) for change, at_ns in rows]
    found = [(now - age, change) for age, change in ages]
    if all(age > grace + STEP for age, _ in ages):
        found.append((now - grace, await index.read(coverage.sequence)))
    return Settling(grace, found)


def _moments(db: Database) -> list[tuple[int, int]]:
    return db.execute("SELECT sequence, at_ns FROM moment ORDER BY sequence").fetchall()

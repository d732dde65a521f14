"""Names of the store that are about to change: the journal knows of each before it happens, so that
a crash leaves none half changed.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from backgate.gateway.errors import BackgateError
from backgate.gateway.journal import Journal
from backgate.gateway.records import Move, Moved
from backgate.gateway.taking import Taking


class Moves:
    """The changes of names that one spool has announced, and what becomes of those that fail."""

    def __init__(self, journal: Journal, taking: Taking, nursery: trio.Nursery) -> None:
        self._journal, self._taking, self._nursery = journal, taking, nursery
        self._last = max(journal.state.moves, default=0)

    async def announced(self, source: str, target: str, *, is_taken: bool) -> Move:
        """Have the journal know, for good, that `source` is to be renamed to `target`.

        Without a source only the name is to be taken.
        """
        self._last += 1
        move = Move(self._last, source, target, is_taken, time.time_ns())
        with self.forgotten_if_it_fails(move):
            self._journal.append(move)
            await self._journal.synchronize()
        return move

    def ended(self, move: Move) -> None:
        """Note that nothing is left to do of it."""
        self._journal.append(Moved(move.number))

    @contextmanager
    def forgotten_if_it_fails(self, move: Move) -> Iterator[None]:
        """Have no later start finish what a tool was told has failed; a crash is another matter."""
        try:
            yield
        except (BackgateError, OSError):
            self.ended(move)
            raise

    async def give_up(self, move: Move) -> None:
        """End what did not come so far that its target is more than a name."""
        await self._taking.surely_give_back(move.target, purpose_of(move))
        self.ended(move)

    def give_up_behind(self, move: Move) -> None:
        """Do that in the background: what was asked may still be done, or the store be away."""
        self._nursery.start_soon(self.give_up, move)


def purpose_of(move: Move) -> str:
    """Return for what the target is taken."""
    since = f"-{move.since_ns}" if move.since_ns else ""  # numbers begin again at each start
    return f"rename-{move.number}{since}"

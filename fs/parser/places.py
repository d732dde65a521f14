"""How many workers live at a time, over all backups: each may take a GiB of memory.

One that nobody asks gives its place to one that is needed, the longest idle first. Where all are
in use, each may work for a while before it has to make room: a worker that is started anew reads
and replays all that it knows once more.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import trio

MOST = 8  # workers; a search through several backups uses four
REST = 1.0  # seconds without a request, after which a worker is idle
TURN = 10.0  # seconds that one which is not may keep its place while others wait
LOOK_AGAIN = 0.1  # seconds
IDLE = 60.0  # seconds without a request after which a worker is ended, though nobody waits
DEAR = 20  # times as long as its longest answer took, a long log: that would be due again
IDLE_MAX = 3600.0  # seconds


@dataclass(slots=True)
class _Place:
    end: Callable[[], None]  # ends the worker, which leaves
    since: float  # seconds, trio's clock
    rests_since: float | None = None  # None: it is at work


class Places:
    """The places for workers; whoever has one is known by any object of his own."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._taken: OrderedDict[object, _Place] = OrderedDict()  # the longest idle first
        self._entering = trio.StrictFIFOLock()

    async def enter(self, who: object, end: Callable[[], None]) -> None:
        """Return once `who` has a place, at work; `end` is to end its worker while it rests."""
        async with self._entering:
            while len(self._taken) >= self._most and not self._make_room():  # noqa: ASYNC110
                await trio.sleep(LOOK_AGAIN)  # nobody tells when one has rested for long enough
            self._taken[who] = _Place(end, trio.current_time())

    def leave(self, who: object) -> None:
        """Give the place up, if there is one."""
        self._taken.pop(who, None)

    def work(self, who: object) -> None:
        """Note that its worker is asked something, if it has one: it may not be ended now."""
        if who in self._taken:
            self._taken[who].rests_since = None

    def rest(self, who: object) -> None:
        """Note that its worker, if it has one, has answered; it may be ended from now on."""
        if who in self._taken:
            place = self._taken[who]
            place.rests_since = trio.current_time()
            self._taken.move_to_end(who)
            if self._entering.locked() and len(self._taken) >= self._most and self._is_over(place):
                self._end(who)

    def _make_room(self) -> bool:
        for who, place in self._taken.items():
            if self._is_idle(place) or self._is_over(place):
                self._end(who)
                return True
        return False

    def _is_idle(self, place: _Place) -> bool:
        rests_since = place.rests_since
        return rests_since is not None and trio.current_time() >= rests_since + REST

    def _is_over(self, place: _Place) -> bool:
        is_resting = place.rests_since is not None
        return is_resting and trio.current_time() >= place.since + TURN

    def _end(self, who: object) -> None:
        self._taken.pop(who).end()


def idle_for(longest: float) -> float:
    """Return for how many seconds a worker is kept that nobody asks, by its longest answer."""
    return max(IDLE, min(DEAR * longest, IDLE_MAX))

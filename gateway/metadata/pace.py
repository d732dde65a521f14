"""How many keys to ask for in one page: fewer when the store times out, more when it copes."""

from collections.abc import Callable

LARGEST = 1000  # keys; what S3 gives at most
SMALLEST = 10  # keys; a store that cannot list these cannot list
SLOW = 5.0  # seconds; an answer that fails later than this was too much to ask
QUICK = 3  # faults in a row that come sooner; fewer say that the store is busy, not that it cannot
TRIAL = 4  # pages that must succeed before more is tried
NEAR = 8  # a page that is short of the one that failed by less than 1/8 is as good
SHARE = 50  # trials that fail take at most 1/50 of the time
LONGEST_LOSS = 600.0  # seconds; more is not one page's fault


def halved(size: int) -> int:
    """How a flat listing gives way."""
    return size // 2


def smallest(size: int) -> int:
    """How a listing by delimiter gives way: its cost may lie in what it skips."""
    return SMALLEST


class Pace:
    """The size of the next page, learnt from how the ones before it went."""

    def __init__(
        self, size: int, largest: int = LARGEST, give_way: Callable[[int], int] = halved
    ) -> None:
        self._largest = max(largest, SMALLEST)
        self.size = min(max(size, SMALLEST), self._largest)
        self._give_way = give_way
        self._works: int | None = None  # a size that came
        self._ceiling: int | None = None  # one that failed
        self._not_before = 0.0  # when the ceiling may be tried again, in the callers' time
        self._good = self._failed = 0  # pages in a row
        self.is_hopeless = False  # even the smallest page has failed, and none has come since

    def succeeded(self, size: int, now: float) -> None:
        """Note a page of `size` at the time `now`, in seconds."""
        self._failed = 0
        if size < self.size:
            return
        self._works = size
        self.is_hopeless = False
        self._good += 1
        if self._good < TRIAL:
            return
        if self._ceiling is not None and now >= self._not_before:
            self._ceiling = None
        larger = self._larger()
        if larger > self.size:
            self.size, self._good = larger, 0

    def failed(self, size: int, took: float, now: float) -> None:
        """Note that a page of `size` failed after `took` seconds.

        Quick faults count only in a row, and that of a page that was larger than they are by now
        not at all. Only one that took long says which size was too much.
        """
        if size > self.size:
            return
        self._failed += 1
        self._good = 0
        if took < SLOW and self._failed < QUICK:
            return
        self._failed = 0
        self.is_hopeless = size <= SMALLEST
        if took >= SLOW:
            self._ceiling = size
            self._not_before = now + SHARE * min(took, LONGEST_LOSS)
        fallback = self._give_way(size)
        if self._works is not None and self._works < size:
            fallback = max(fallback, self._works)
        else:
            self._works = None
        self.size = max(fallback, SMALLEST)

    def _larger(self) -> int:
        """The next size to try: twice as much, or half the way to what has failed."""
        larger = min(2 * self.size, self._largest)
        if self._ceiling is None or larger < self._ceiling:
            return larger
        middle = (self.size + self._ceiling) // 2
        return middle if NEAR * (middle - self.size) >= self.size else self.size

"""How many keys to ask for in one page: fewer when the store times out, more when it copes."""

from collections.abc import Callable

LARGEST = 1000  # keys; what S3 gives at most
SMALLEST = 10  # keys; a store that cannot list these cannot list
SLOW = 5.0  # seconds; an answer that fails later than this was too much to ask
FIRST_TRIAL = 4  # pages that must succeed before more is tried
LAST_TRIAL = 256  # pages; a store that never copes with more is bothered this rarely


def halved(size: int) -> int:
    """How a flat listing gives way."""
    return size // 2


def smallest(size: int) -> int:
    """How a listing by delimiter gives way: its cost may lie in what it skips."""
    return SMALLEST


class Pace:
    """The size of the next page, learnt from how the ones before it went."""

    def __init__(self, size: int, give_way: Callable[[int], int] = halved) -> None:
        self.size = min(max(size, SMALLEST), LARGEST)
        self._give_way = give_way
        self._needed = FIRST_TRIAL  # pages in a row before the size grows
        self._good = self._failed = 0  # in a row
        self.is_hopeless = False  # even the smallest page has failed, and none has come since
        self._is_trying = False  # the size has grown and not yet been answered

    def succeeded(self) -> None:
        """Note an answer."""
        self._failed = 0
        self.is_hopeless = False
        self._good += 1
        if self._is_trying:
            self._is_trying, self._needed = False, FIRST_TRIAL
        if self._good >= self._needed and self.size < LARGEST:
            self.size = min(2 * self.size, LARGEST)
            self._good, self._is_trying = 0, True

    def failed(self, took: float) -> None:
        """Note a fault after `took` seconds; a quick one counts only when it happens again."""
        self._failed += 1
        self._good = 0
        if took < SLOW and self._failed < 2:
            return
        if self._is_trying:
            self._is_trying, self._needed = False, min(2 * self._needed, LAST_TRIAL)
        self.is_hopeless = self.size == SMALLEST
        self.size = max(self._give_way(self.size), SMALLEST)

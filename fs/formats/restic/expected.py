"""What a reader will probably ask for next, in order, and what of it he has passed over."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

PASSED_MAX = 1024  # rsync takes a directory's files before what lies in its directories

K = TypeVar("K", bound=Hashable)


class Expected(Generic[K]):
    """A line of things, each with a weight in bytes."""

    def __init__(self) -> None:
        self.weight = 0  # bytes that have not been asked for
        self._coming: OrderedDict[K, int] = OrderedDict()
        self._passed: OrderedDict[K, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._coming)

    def add(self, key: K, weight: int) -> None:
        """Put one thing at the end of the line."""
        if key not in self._coming:
            self._coming[key] = weight
            self.weight += weight

    def reached(self, key: K) -> bool:
        """True, once, when `key` was expected; what stood before it is passed over."""
        if key in self._passed:
            del self._passed[key]
            return True
        if key not in self._coming:
            return False
        while key in self._coming:
            passed, weight = self._coming.popitem(last=False)
            self.weight -= weight
            self._passed[passed] = None
        del self._passed[key]
        while len(self._passed) > PASSED_MAX:
            self._passed.popitem(last=False)
        return True

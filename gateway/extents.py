"""Which bytes of a file are where: a set of ranges, and the objects that hold what is not local.

Ranges are half-open, sorted and never touch, so a file that is written from start to end has one.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from backgate.gateway.provider import ObjectInfo


class Ranges:
    """A set of byte offsets."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self.total = 0  # bytes in the set
        for start, stop in ranges:
            self.add(start, stop)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._stops, strict=True)

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, stop: int) -> None:
        """Put `[start, stop)` into the set."""
        if start >= stop:
            return
        first, last = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._replace(first, last, [(start, stop)])

    def remove(self, start: int, stop: int) -> None:
        """Take `[start, stop)` out of the set."""
        if start >= stop:
            return
        first, last = bisect_right(self._stops, start), bisect_left(self._starts, stop)
        if first >= last:
            return
        left = (self._starts[first], min(start, self._stops[first]))
        right = (max(stop, self._starts[last - 1]), self._stops[last - 1])
        self._replace(first, last, [piece for piece in (left, right) if piece[0] < piece[1]])

    def within(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the parts of `[start, stop)` that are in the set."""
        first, last = bisect_right(self._stops, start), bisect_left(self._starts, stop)
        return [
            (max(start, self._starts[number]), min(stop, self._stops[number]))
            for number in range(first, last)
        ]

    def gaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the parts of `[start, stop)` that are not in the set."""
        gaps = []
        for inside, outside in self.within(start, stop):
            if start < inside:
                gaps.append((start, inside))
            start = outside
        if start < stop:
            gaps.append((start, stop))
        return gaps

    def covers(self, start: int, stop: int) -> bool:
        """True when all of `[start, stop)` is in the set."""
        return not self.gaps(start, stop)

    def _replace(self, first: int, last: int, pieces: list[tuple[int, int]]) -> None:
        self.total -= sum(self._stops[first:last]) - sum(self._starts[first:last])
        self._starts[first:last] = [start for start, _ in pieces]
        self._stops[first:last] = [stop for _, stop in pieces]
        self.total += sum(stop - start for start, stop in pieces)


@dataclass(frozen=True, slots=True)
class Backing:
    """The bytes `[start, stop)` of a file, as they lie in an object from `offset` on."""

    start: int
    stop: int
    info: ObjectInfo
    offset: int  # bytes

    def cut(self, start: int, stop: int) -> "Backing":
        """Return the part within `[start, stop)`, which must not be empty."""
        start, stop = max(start, self.start), min(stop, self.stop)
        return Backing(start, stop, self.info, self.offset + start - self.start)


class BackingMap:
    """What of a file lies in objects; where two claim a byte, the later one holds it."""

    def __init__(self, backings: Iterable[Backing] = ()) -> None:
        self._backings: list[Backing] = []
        for backing in backings:
            self.put(backing)

    def __iter__(self) -> Iterator[Backing]:
        return iter(self._backings)

    def __bool__(self) -> bool:
        return bool(self._backings)

    def put(self, backing: Backing) -> None:
        """Let `backing` hold its range."""
        if backing.start >= backing.stop:
            return
        self.remove(backing.start, backing.stop)
        at = bisect_left(self._backings, backing.start, key=lambda one: one.start)
        self._backings.insert(at, backing)

    def remove(self, start: int, stop: int) -> None:
        """Let no object hold `[start, stop)`."""
        first, last = self._overlap(start, stop)
        if first >= last:
            return
        before, after = self._backings[first], self._backings[last - 1]
        kept = []
        if before.start < start:
            kept.append(before.cut(before.start, start))
        if after.stop > stop:
            kept.append(after.cut(stop, after.stop))
        self._backings[first:last] = kept

    def within(self, start: int, stop: int) -> list[Backing]:
        """Return what holds the parts of `[start, stop)`, ascending."""
        first, last = self._overlap(start, stop)
        return [one.cut(start, stop) for one in self._backings[first:last]]

    def moved(self, key: str, info: ObjectInfo) -> None:
        """Note that the object `key` is now to be found as `info`."""
        self._backings = [
            Backing(one.start, one.stop, info, one.offset) if one.info.key == key else one
            for one in self._backings
        ]

    def _overlap(self, start: int, stop: int) -> tuple[int, int]:
        first = bisect_right(self._backings, start, key=lambda one: one.stop)
        last = bisect_left(self._backings, stop, key=lambda one: one.start)
        return first, last

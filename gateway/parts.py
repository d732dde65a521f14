"""How a file is cut into the parts of a multipart upload.

Parts double in size as their number grows, so that a short file leaves in small parts, one after
the other while it is written, and the longest that the store takes still fits into its number of
parts.
"""

from dataclasses import dataclass, field
from itertools import accumulate

import trio

from backgate.gateway.extents import BackingMap, Ranges
from backgate.gateway.provider import Limits
from backgate.gateway.units import GIB, MIB, TIB

FIRST_PART = 8 * MIB  # bytes; a GET of this size costs boto3 little, and four fill a gigabit line
COPY_PART = 1 * GIB  # bytes copied by one request; several run at once, and none takes minutes
SINGLE_PARTS = 4  # a file of up to so many first parts goes by one put: five requests less
EQUAL_FACTOR = 16  # a part's size where it cannot grow, in first parts: 1.2 TiB in 10,000 of them
FILE_MAX = 5 * TIB  # bytes; parts that grow fast enough for more would be large too soon
LEAST_FILLED = 4  # how far below the average part the first try of a composition starts
PERIODS = (10, 20, 50, 100)  # how often the size may double, the slowest that suffices


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """Part `number` of an upload: the bytes `[start, stop)` of the file."""

    number: int  # from 1
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(slots=True, eq=False)
class Upload:
    """One multipart upload of one file, from before it is begun."""

    key: str
    plan: "PartPlan"
    attributes_version: int  # of the file when it was begun: they are given then, and only then
    upload: str = ""  # the store's name for it; empty: not begun yet
    etags: dict[Part, str] = field(default_factory=dict)  # of what was sent
    unplanned: set[Part] = field(default_factory=set)  # of these: a short last one, composed ones
    beginning: trio.Lock = field(default_factory=trio.Lock)
    is_given_up: bool = False

    def sent(self, part: Part, etag: str) -> None:
        """Note that the store has `part` as it is now."""
        self.etags[part] = etag
        if part != self.plan.part(part.number):
            self.unplanned.add(part)

    def changed(self, start: int, stop: int) -> None:
        """Note that `[start, stop)` of the file is no longer what was sent."""
        first, last = self.plan.number_at(start), self.plan.number_at(stop - 1)
        if last - first < len(self.etags):
            for number in range(first, last + 1):
                self.etags.pop(self.plan.part(number), None)
        else:
            self.etags = {one: tag for one, tag in self.etags.items() if one.stop <= start}
        for part in [one for one in self.unplanned if one.start < stop and start < one.stop]:
            self.unplanned.discard(part)
            self.etags.pop(part, None)


class PartPlan:
    """The parts of any file that is sent from its start to its end, for one store."""

    def __init__(self, limits: Limits, first_part: int = FIRST_PART) -> None:
        first = min(max(first_part, limits.part_min), limits.part_max)
        self.single = min(SINGLE_PARTS * first, limits.put_max)  # bytes, of a file sent in one put
        if limits.equal_parts:
            first = min(EQUAL_FACTOR * first, limits.part_max)
        for periods in (1,) if limits.equal_parts else PERIODS:
            self._period = max(1, limits.part_count // periods)
            self._sizes = _sizes(first, limits.part_max, limits.part_count, self._period)
            self._starts = [0, *accumulate(size * self._period for size in self._sizes)]
            if self._reach(limits) >= min(limits.object_max, FILE_MAX):
                break
        self.largest = min(self._reach(limits), limits.object_max)  # bytes, of a file
        self.first = first  # bytes

    def part(self, number: int) -> Part:
        """Return part `number` (from 1) of a file that goes on behind it."""
        level, index = divmod(number - 1, self._period)
        level = min(level, len(self._sizes) - 1)
        index = number - 1 - level * self._period
        start = self._starts[level] + index * self._sizes[level]
        return Part(number, start, start + self._sizes[level])

    def number_at(self, offset: int) -> int:
        """Return the number of the part that `offset` falls into."""
        level = 0
        while level < len(self._sizes) - 1 and offset >= self._starts[level + 1]:
            level += 1
        return level * self._period + (offset - self._starts[level]) // self._sizes[level] + 1

    def parts(self, size: int) -> list[Part]:
        """Return all parts of a file of `size` bytes; the last may be short."""
        whole = [self.part(number) for number in range(1, self.number_at(size - 1) + 1)]
        return [*whole[:-1], Part(whole[-1].number, whole[-1].start, size)]

    def _reach(self, limits: Limits) -> int:
        last = self.part(limits.part_count)
        return last.stop


def _sizes(first: int, largest: int, count: int, period: int) -> list[int]:
    """Return the size of the parts in each period."""
    return [min(first << level, largest) for level in range(max(1, -(-count // period)))]


def composition(
    size: int, local: Ranges, backing: BackingMap, limits: Limits, first_part: int
) -> list[Part]:
    """Return parts of a file of which much lies unchanged in objects: long runs of those stand
    alone.

    A run that stands alone can be copied on the store's side; all the rest has to be sent.
    """
    unit = max(first_part, limits.part_min, size // (LEAST_FILLED * limits.part_count))
    while True:
        parts = _compose(size, local, backing, limits, unit)
        if len(parts) <= limits.part_count:
            return parts
        unit *= 2


def _compose(
    size: int, local: Ranges, backing: BackingMap, limits: Limits, unit: int
) -> list[Part]:
    piece = max(unit, min(COPY_PART, limits.copy_max, limits.part_max))
    parts: list[Part] = []
    offset = 0
    for start, stop in [*_runs(size, local, backing, unit), (size, size)]:
        while offset < start:  # to be sent; what is too short for a part takes from the run
            end = min(offset + unit, start)
            if end == start:
                end = min(max(end, offset + limits.part_min), size)
            parts.append(Part(len(parts) + 1, offset, end))
            offset = end
        while stop - offset >= unit or offset < stop == size:
            end = min(offset + piece, stop)
            parts.append(Part(len(parts) + 1, offset, end))
            offset = end
    return parts


def _runs(size: int, local: Ranges, backing: BackingMap, shortest: int) -> list[tuple[int, int]]:
    """Return the ranges of at least `shortest` bytes that one object holds unchanged."""
    return [
        (start, stop)
        for one in backing.within(0, size)
        for start, stop in local.gaps(one.start, one.stop)
        if stop - start >= shortest
    ]

"""Fetch ahead of a sequential reader, and hand what was fetched to the kernel before it asks.

Around any `Source`, one per open file. Where reads follow each other, segments in front of them are
fetched, in a window that grows with what was really read: at most twice that, at most `WINDOW`. A
reader that jumps gets nothing ahead. What arrives is pushed into the kernel's page cache, so that
most reads never reach us; a small gap is left at the start of each segment, and the read that falls
into it tells how far the reader has come.

What is held ahead is bounded over all files by one `Budget`. A read never waits for the budget, and
an error ahead of the reader is nobody's yet: the read that wants those bytes asks again and reports
it.
"""

import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

import trio

from backgate.gateway.errors import BackgateError
from backgate.gateway.source import Data, Source
from backgate.gateway.units import KIB, MIB

log = logging.getLogger(__name__)

SEGMENT = 8 * MIB  # bytes; a longer GET gains nothing, a shorter one costs requests
FIRST = 1 * MIB  # bytes; the first and shortest window, and the shortest segment
PARALLEL = 4  # segments on their way for one file
WINDOW = (PARALLEL + 1) * SEGMENT  # bytes; one more than fly, for the reader is in it
SLACK = 1 * MIB  # bytes by which the kernel's reads overtake each other
STEP = 256 * KIB  # bytes; a read that begins so close behind the last one continues it
GAP = 64 * KIB  # bytes not pushed at the start of a segment; the largest page of any kernel
LEAD = 512 * KIB  # bytes; as far in front of a reader in the segment the push stays out of its way
PUSHERS = 8  # threads that push; one may have to wait for a slow read of the same page
IGNORED = 4  # reads of what was pushed, after which we see that nobody uses it: direct I/O

Push = Callable[[int, Data], None]


class Segment:
    """A stretch of the source ahead of the reader, on its way or here."""

    def __init__(self, start: int, stop: int, owner: object) -> None:
        self.start, self.stop, self.owner = start, stop, owner
        self.data: memoryview | None = None  # None once it has ended: failed, or gave way
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self.pushed_from: int | None = None  # offset from which on the kernel has it

    @property
    def size(self) -> int:
        return self.stop - self.start


class Budget:
    """The bytes that all files together may hold ahead of their readers; never waited for."""

    def __init__(self, limit: int = 64 * MIB) -> None:
        self.limit = limit
        self.used = 0
        self.pushers = trio.CapacityLimiter(PUSHERS)
        self._held: OrderedDict[Segment, None] = OrderedDict()  # the least lately used first
        self._owners: Counter[object] = Counter()

    def share(self, owner: object) -> int:
        """Return how many bytes `owner` may hold, now that so many hold some."""
        return self.limit // (len(self._owners) + (owner not in self._owners))

    def take(self, segment: Segment) -> bool:
        """Make room for `segment` at the cost of what lay unread the longest; False: it cannot."""
        for other in list(self._held):
            if self.used + segment.size <= self.limit:
                break
            if other.ended.is_set() and other.owner is not segment.owner:
                self.give(other)
        if self.used + segment.size > self.limit:
            return False
        self.used += segment.size
        self._held[segment] = None
        self._owners[segment.owner] += 1
        return True

    def touch(self, segment: Segment) -> None:
        """Note that `segment` was read."""
        if segment in self._held:
            self._held.move_to_end(segment)

    def give(self, segment: Segment) -> None:
        """Take `segment`'s bytes away and count them free; once is enough."""
        if segment not in self._held:
            return
        del self._held[segment]
        segment.data = None
        self.used -= segment.size
        self._owners[segment.owner] -= 1
        if not self._owners[segment.owner]:
            del self._owners[segment.owner]


class ReadAhead:
    """A `Source` over another one, for one open file.

    `push(offset, data)` hands whole pages to the kernel. It is called in a worker thread, never by
    a read in progress, and may block there until reads of the same pages have been answered.
    """

    def __init__(
        self, source: Source, nursery: trio.Nursery, budget: Budget, push: Push | None = None
    ) -> None:
        self.size = source.size
        self._source, self._nursery, self._budget, self._push = source, nursery, budget, push
        self._segments: deque[Segment] = deque()  # ascending; together one stretch
        self._begin = 0  # where the present run of sequential reads began
        self._position = 0  # the furthest byte it has come to, as far as we know
        self._frontier = 0  # everything of the run below this was read, is here, or is on its way
        self._reads = 0  # of the run
        self._stray: range | None = None  # the last read that did not belong to the run
        self._flying = 0  # segments on their way
        self._ignored = 0  # reads of what had been pushed
        self._pushing = trio.Lock()
        self._is_closed = False

    async def read_at(self, offset: int, length: int) -> Data:
        """Return what the source returns, and raise what it raises."""
        stop = min(offset + length, self.size)
        if offset >= stop:
            await trio.lowlevel.checkpoint()
            return b""
        self._note(offset, stop)
        self._fetch_ahead()
        pieces: list[Data] = []
        while offset < stop:
            piece = await self._piece(offset, stop)
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Give up what is on its way and free what was held; reads in progress still end well."""
        self._is_closed = True
        self._drop_segments()

    async def stop_pushing(self) -> None:
        """Push no more, and return once no push is in progress: before the file is changed."""
        self._push = None
        async with self._pushing:
            pass

    async def _piece(self, offset: int, stop: int) -> Data:
        """Return bytes from `offset` on, of a segment, or of the source where there is none."""
        for segment in self._segments:
            if segment.start <= offset < segment.stop:
                break
            if offset < segment.start:
                stop = min(stop, segment.start)
                return await self._source.read_at(offset, stop - offset)
        else:
            return await self._source.read_at(offset, stop - offset)
        await segment.ended.wait()
        self._budget.touch(segment)
        if segment.data is None:
            return await self._source.read_at(offset, min(stop, segment.stop) - offset)
        return segment.data[offset - segment.start : stop - segment.start]

    def _note(self, offset: int, stop: int) -> None:
        """Learn from a read where the reader is, and whether it reads on or jumps."""
        if self._position - SLACK <= offset <= self._frontier + STEP:
            self._advance(stop)
            self._notice_ignored(offset)
        elif self._stray is not None and 0 <= offset - self._stray.stop <= STEP:
            self._drop_segments()
            self._begin, self._reads = self._stray.start, 1
            self._position = self._frontier = self._stray.stop
            self._stray = None
            self._advance(stop)
        else:
            self._stray = range(offset, stop)

    def _advance(self, stop: int) -> None:
        self._reads += 1
        self._position = max(self._position, stop)
        self._frontier = max(self._frontier, self._position)
        while self._segments and self._segments[0].stop <= self._position - SLACK:
            self._drop(self._segments.popleft())

    def _notice_ignored(self, offset: int) -> None:
        """Stop pushing when reads keep coming for pages that the kernel was given."""
        for segment in self._segments:
            pushed = segment.pushed_from
            if pushed is not None and pushed <= offset < segment.stop:
                self._ignored += 1
        if self._ignored >= IGNORED:
            self._push = None

    def _fetch_ahead(self) -> None:
        """Start as many segments as the run has earned and the budget has room for."""
        if self._reads < 2 or self._is_closed:
            return
        earned = max(FIRST, 2 * (self._position - self._begin))
        window = min(WINDOW, earned, self._budget.share(self))
        length = max(FIRST, min(SEGMENT, window // PARALLEL // FIRST * FIRST))
        while self._flying < PARALLEL and self._frontier < self.size:
            stop = min((self._frontier // length + 1) * length, self.size)
            segment = Segment(self._frontier, stop, self)
            if stop > self._position + window or not self._budget.take(segment):
                return
            self._segments.append(segment)
            self._frontier = stop
            self._flying += 1
            self._nursery.start_soon(self._fetch, segment, name="read ahead")

    async def _fetch(self, segment: Segment) -> None:
        with segment.scope:
            try:
                segment.data = memoryview(await self._source.read_at(segment.start, segment.size))
            except BackgateError as error:
                log.debug("ahead of the reader: %s", error)
            finally:
                self._flying -= 1
                if segment.data is None or segment.scope.cancel_called:
                    self._budget.give(segment)
                segment.ended.set()
            self._fetch_ahead()
            await self._push_segment(segment)

    async def _push_segment(self, segment: Segment) -> None:
        """Hand a segment to the kernel, but for its gap and what the reader is about to ask."""
        async with self._pushing:
            data, start = segment.data, segment.start + GAP
            if segment.start <= self._position:
                start = max(start, self._position + LEAD)
            start = -(-start // GAP) * GAP
            if data is None or self._push is None or start >= segment.stop:
                return
            try:
                await trio.to_thread.run_sync(
                    self._push, start, data[start - segment.start :], limiter=self._budget.pushers
                )
                segment.pushed_from = start
            except OSError as error:
                log.debug("the kernel takes no more of this file: %s", error)
                self._push = None

    def _drop_segments(self) -> None:
        while self._segments:
            self._drop(self._segments.popleft())

    def _drop(self, segment: Segment) -> None:
        segment.scope.cancel()
        self._budget.give(segment)

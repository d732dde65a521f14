"""Fetch ahead of a sequential reader, and hand what was fetched to the kernel before it asks.

Around any `Source`, one per open file. Where reads follow each other, segments in front of them are
fetched, in a window that grows with what was really read: at most `GROWTH` times that, and at most
`WINDOW`. A reader that jumps gets nothing ahead. What arrives is pushed into the kernel's page
cache, so that most reads never reach us; small gaps are left, and the reads that fall into them
tell how far the reader has come.

What is held ahead is bounded over all files by one `Budget`. A read never waits for the budget, and
an error ahead of the reader is nobody's yet: the read that wants those bytes asks again and reports
it.
"""

import logging
from collections import deque
from collections.abc import Callable

import trio

from backgate.gateway.budget import Budget, Segment
from backgate.gateway.source import Data, Source
from backgate.gateway.units import KIB, MIB

log = logging.getLogger(__name__)

__all__ = ["Budget", "Push", "ReadAhead"]

SEGMENT = 16 * MIB  # bytes; half the requests, and a third of the CPU, of 8 MiB
FIRST = 1 * MIB  # bytes; the shortest segment, and half of the first window
GROWTH = 4  # bytes ahead for each that was read in a row: a large file is soon at full speed
BRISK, SLOW = 0.5, 2.0  # seconds; a segment that came faster may be longer, one slower is shorter
PARALLEL = 4  # segments on their way for one file
WINDOW = (PARALLEL + 1) * SEGMENT  # bytes; one more than fly, for the reader is in it
SLACK = 1 * MIB  # bytes by which the kernel's reads overtake each other
PROBES = 2  # reads of a run that fetch only what they ask for; a later one may wait for a segment
LATE = 32 * MIB  # bytes by which a kernel that was told to read far ahead comes back for the rest
LATE_READS = 16  # in a row, so far back, show that the reader itself went back
STEP = 256 * KIB  # bytes; a read that begins so close behind the last one continues it
GAP = 64 * KIB  # bytes not pushed here and there; the largest page of any kernel
MARK = 4 * MIB  # bytes from gap to gap; so far the reader gets before we notice
HOLD = 0.025  # seconds that a read of what has just come waits for the push, which spares the next
LEAD = (
    512 * KIB
)  # bytes; so far in front of a reader who did not wait the push stays out of its way
IGNORED = 4 * MIB  # bytes read although they were pushed, before we ask whether pushing helps
IGNORED_PART = 4  # it does not when that is more than a quarter of all that was pushed: direct I/O

Push = Callable[[int, Data], None]


class ReadAhead:
    """A `Source` over another one, for one open file.

    `push(offset, data)` hands whole pages to the kernel. It is called in a worker thread, and may
    block there until reads of the same pages have been answered: no read waits for it for long.
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
        self._stray = range(0)  # the last reads in a row that did not belong to the run
        self._strays = 0  # how many they are
        self._flying = 0  # segments on their way
        self._length = FIRST  # of the next segment, as the store's speed has it
        self._pushing = trio.Lock()
        self._pushed = self._ignored = 0  # bytes given to the kernel, and read from us all the same
        self._is_closed = False

    async def read_at(self, offset: int, length: int) -> Data:
        """Return what the source returns, and raise what it raises."""
        stop = min(offset + length, self.size)
        if offset >= stop:
            await trio.lowlevel.checkpoint()
            return b""
        self._note(offset, stop)
        self._fetch_ahead()
        self._frontier = max(self._frontier, self._position)
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
        self._push = None
        self._drop_segments()

    async def stop_pushing(self) -> None:
        """Push no more, and return once no push is in progress: before the file is changed."""
        self._push = None
        async with self._pushing:
            pass

    async def _piece(self, offset: int, stop: int) -> Data:
        """Return bytes from `offset` on, of a segment, or of the source where there is none."""
        for segment in self._segments:
            if offset < segment.start:
                stop = min(stop, segment.start)
                break
            if offset < segment.stop:
                held = (await self._held(segment, offset))[: stop - offset]
                if held:
                    return held
                stop = min(stop, segment.stop)
                break
        return await self._source.read_at(offset, stop - offset)

    async def _held(self, segment: Segment, offset: int) -> memoryview:
        """Return what `segment` holds from `offset` on, once it has ended."""
        segment.readers += 1
        try:
            await segment.ended.wait()
            self._budget.touch(segment)
            return segment.at(offset)
        finally:
            segment.readers -= 1

    def _note(self, offset: int, stop: int) -> None:
        """Learn from a read where the reader is, and whether it reads on or jumps."""
        if self._position - SLACK <= offset <= self._frontier + STEP:
            self._frontier = max(self._frontier, offset)
            self._advance(stop)
            self._notice_ignored(offset, stop)
            return
        if 0 <= offset - self._stray.stop <= STEP:
            self._stray, self._strays = range(self._stray.start, stop), self._strays + 1
        else:
            self._stray, self._strays = range(offset, stop), 1
        is_late = self._position - LATE <= offset < self._position
        if self._strays == (LATE_READS if is_late else PROBES):
            self._drop_segments()
            self._begin, self._reads = self._stray.start, self._strays
            self._position = self._frontier = stop

    def _advance(self, stop: int) -> None:
        self._reads += 1
        self._position = max(self._position, stop)
        if self._reads <= PROBES:
            self._frontier = max(self._frontier, self._position)
        behind = self._position - SLACK
        while self._segments and self._segments[0].stop <= behind and not self._segments[0].readers:
            self._drop(self._segments.popleft())

    def _notice_ignored(self, offset: int, stop: int) -> None:
        """Stop pushing when reads keep coming for pages that the kernel was given."""
        if any(offset in pushed for segment in self._segments for pushed in segment.pushed):
            self._ignored += stop - offset
            if self._ignored > max(IGNORED, self._pushed // IGNORED_PART):
                self._push = None

    def _fetch_ahead(self) -> None:
        """Start as many segments as the run has earned and the budget has room for."""
        if self._reads < PROBES or self._is_closed:
            return
        earned = max(2 * FIRST, GROWTH * (self._position - self._begin))
        window = min(WINDOW, earned, self._budget.share(self))
        length = max(FIRST, min(self._length, window // PARALLEL // FIRST * FIRST))
        while self._flying < PARALLEL and self._frontier < self.size:
            stop = min((self._frontier // length + 1) * length, self.size)
            segment = Segment(self, self._frontier, stop)
            if stop > self._position + window or not self._budget.take(segment):
                return
            self._segments.append(segment)
            self._frontier = stop
            self._flying += 1
            self._nursery.start_soon(self._fetch, segment, name="read ahead")

    async def _fetch(self, segment: Segment) -> None:
        began = trio.current_time()
        try:
            with segment.scope:
                data = await self._source.read_at(segment.start, segment.size)
                segment.pieces = [(segment.start, memoryview(data).toreadonly())]
                self._learn_speed(segment, trio.current_time() - began)
        except Exception as error:  # whatever it is, it must not end the tasks of other files
            log.debug("ahead of the reader: %r", error)
        finally:
            self._flying -= 1
            if not segment.pieces or segment.scope.cancel_called:
                self._budget.give(segment)
                segment.ended.set()
        self._fetch_ahead()
        await self._hand_over(segment)

    async def _hand_over(self, segment: Segment) -> None:
        """Let the kernel have a segment first, and who waits for it then."""
        try:
            if self._push is not None and not segment.ended.is_set():
                self._nursery.start_soon(self._push_segment, segment, name="push")
                with trio.move_on_after(HOLD):
                    await segment.handed.wait()
        finally:
            segment.ended.set()

    def _learn_speed(self, segment: Segment, seconds: float) -> None:
        """Longer segments cost less; but a reader behind a slow line waits for each whole."""
        if seconds > SLOW:
            self._length = max(FIRST, segment.size // 2 // FIRST * FIRST)
        elif seconds < BRISK and segment.size >= self._length:
            self._length = min(SEGMENT, 2 * self._length)

    async def _push_segment(self, segment: Segment) -> None:
        """Hand a segment to the kernel, and hold no longer what the kernel has."""
        async with self._pushing:
            data = segment.at(segment.start)
            try:
                await trio.to_thread.run_sync(
                    self._push_marks, segment, data, limiter=self._budget.pushers
                )
            except OSError as error:
                log.debug("the kernel takes no more of this file: %s", error)
                self._push = None
            finally:
                segment.handed.set()
            if self._push is not None:
                self._pushed += sum(map(len, segment.pushed))
                self._budget.shrink(segment, self._not_pushed(segment))

    def _push_marks(self, segment: Segment, data: memoryview) -> None:
        """In a thread: push from mark to mark, but for the gaps and what is about to be asked for.

        A reader that overtakes us makes each page wait for the other, so we go on in front of it.
        """
        start, end = segment.start, segment.start + len(data)
        while start < end:
            stop = min((start // MARK + 1) * MARK, end)
            begin = start + GAP
            if start <= self._position:
                lead = LEAD if segment.ended.is_set() else 0
                begin = max(begin, self._position + lead)
            begin = -(-begin // GAP) * GAP
            push = self._push
            if push is None:
                return
            if begin < stop:
                push(begin, data[begin - segment.start : stop - segment.start])
                segment.pushed.append(range(begin, stop))
            start = stop

    def _not_pushed(self, segment: Segment) -> list[range]:
        """What of a segment a read may still ask us for."""
        starts = [max(segment.start, self._position - SLACK), *(one.stop for one in segment.pushed)]
        stops = [*(one.start for one in segment.pushed), segment.stop]
        return [range(start, stop) for start, stop in zip(starts, stops, strict=True)]

    def _drop_segments(self) -> None:
        while self._segments:
            self._drop(self._segments.popleft())

    def _drop(self, segment: Segment) -> None:
        segment.scope.cancel()
        self._budget.give(segment)

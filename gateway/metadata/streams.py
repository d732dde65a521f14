"""List a store in key order, by several streams that share one stretch of keys.

Each page tells an interval for good, so streams need no plan: one lists from the first gap on, and
who is idle splits off a part of what the busiest has before it, at a key known or asked for.
"""

import logging
from dataclasses import dataclass, replace

import trio

from backgate.gateway.errors import NotFound, Refused, StoreError, Unreachable
from backgate.gateway.metadata import coverage, merge, names, spans
from backgate.gateway.metadata.changes import News
from backgate.gateway.metadata.file import Outdated
from backgate.gateway.metadata.index import Index
from backgate.gateway.metadata.merge import Told
from backgate.gateway.metadata.pages import Answer, NotFromThere, OutOfOrder, Pages
from backgate.gateway.metadata.passes import Pass
from backgate.gateway.metadata.splitting import split_point
from backgate.gateway.store import ObjectStore

STREAMS = 4  # of one pass; a single connection to a slow store waits most of the time
SPLIT_AFTER = 8  # pages; what is listed in a few more needs no second stream
CONFIRMED = 8  # keys of a page that are asked for before they are taken to be gone

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Stretch:
    """Keys that one stream is listing."""

    at: bytes  # told up to here
    after: str  # the text behind which that is, for the store
    stop: bytes
    pages: int = 0  # since it was split
    is_indivisible: bool = False  # somebody tries, or has tried


class Streams:
    """Lists flat, in order; `is_sure` when the store is known to have one."""

    def __init__(
        self, store: ObjectStore, pages: Pages, index: Index, news: News, *, is_sure: bool
    ) -> None:
        self._store, self._pages, self._index = store, pages, index
        self._news, self._is_sure = news, is_sure

    async def run(self, one: Pass) -> None:
        """Tell all keys below the prefix of `one` that no page of its passes has told.

        Raises `OutOfOrder`, `NotFromThere`, and `StoreError` when a page cannot be had.
        """
        await _Run(self, self._pages, self._index, one).run()

    async def told(self, one: Pass, answer: Answer, start: bytes) -> Told:
        """Let in a page that begins at `start`, and return what it told; `Outdated`."""
        told = one.told(answer, answer.stop(start, one.end))
        if not self._is_sure:
            await self._confirm(told, start, one.question.patience)
        at = start
        while at < told.stop:
            at = await self._index.write_behind(len(told.objects), merge.flat, told, at)
        self._news.tell()
        return told

    async def known_middle(self, start: bytes, stop: bytes) -> bytes | None:
        """Return a key amidst those that the index has in a stretch, if there are many."""
        if start >= stop:
            return None
        return await self._index.read_behind(names.middle, start, stop, SPLIT_AFTER * merge.CHUNK)

    async def _confirm(self, told: Told, start: bytes, patience: float) -> None:
        """Expect the store not to have what a page leaves out; else its pages are not in order."""
        gone = await self._index.read_behind(merge.missing, told, start)
        store = self._store.patient(patience)
        for key in gone[:: max(1, len(gone) // CONFIRMED)]:
            try:
                await store.head(spans.decoded(key))
            except NotFound:
                continue
            raise OutOfOrder


class _Run:
    """The streams of one pass."""

    def __init__(self, streams: Streams, pages: Pages, index: Index, one: Pass) -> None:
        self._streams, self._pages, self._index, self._pass = streams, pages, index, one
        self._open: list[_Stretch] = []
        self._progress = News()
        self._failure: Exception | None = None

    async def run(self) -> None:
        first = _Stretch(self._pass.first, "", self._pass.end)
        self._open.append(first)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._list, first, nursery.cancel_scope)
            for _ in range(STREAMS - 1):
                nursery.start_soon(self._further, nursery.cancel_scope)
        if self._failure is not None:
            raise self._failure

    async def _further(self, scope: trio.CancelScope) -> None:
        while True:
            victim = max(self._divisible(), key=lambda one: one.pages, default=None)
            if victim is None:
                await self._progress.wait()
                continue
            victim.is_indivisible = True
            stretch = await self._split(victim)
            if stretch is not None:
                self._open.append(stretch)
                victim.pages, victim.is_indivisible = 0, False
                await self._list(stretch, scope)

    def _divisible(self) -> list[_Stretch]:
        return [one for one in self._open if one.pages >= SPLIT_AFTER and not one.is_indivisible]

    async def _list(self, stretch: _Stretch, scope: trio.CancelScope) -> None:
        """List a stretch to its end; the last of all, and the first that fails, end the run."""
        try:
            await self._walk(stretch)
        except (StoreError, OutOfOrder, NotFromThere) as error:
            self._failure = self._failure or error
            scope.cancel()
        finally:
            self._open.remove(stretch)
        if not self._open:
            scope.cancel()

    async def _walk(self, stretch: _Stretch) -> None:
        one, question, lost_at = self._pass, self._pass.question, b""
        while True:
            start = await self._index.read(coverage.gap, stretch.at, stretch.stop, one.since)
            if start is None:
                return
            if start != stretch.at:
                await self._jump(stretch, start)
                question = replace(question, token=None)
            await one.before_page()
            try:
                answer = await self._pages.ask(replace(question, after=stretch.after))
                told = await self._streams.told(one, answer, stretch.at)
            except Outdated:
                question = replace(question, token=None)
                continue
            except (Unreachable, Refused):
                raise
            except StoreError:
                if question.token is None or lost_at == stretch.at:
                    raise
                question, lost_at = replace(question, token=None), stretch.at  # it was forgotten
                continue
            question = answer.following(question)
            self._advance(stretch, answer, told)

    def _advance(self, stretch: _Stretch, answer: Answer, told: Told) -> None:
        if answer.objects:
            stretch.after = answer.objects[-1][1].key
        stretch.at = told.stop
        stretch.pages += 1
        self._progress.tell()

    async def _jump(self, stretch: _Stretch, start: bytes) -> None:
        """Go on at `start`, or at the nearest key before it that can be named to the store."""
        if start.endswith(b"\0"):
            stretch.at, stretch.after = start, spans.decoded(start[:-1])
            return
        known = await self._index.read(names.last_before, self._pass.first, start)
        if known is not None and spans.successor(known) > stretch.at:
            stretch.at, stretch.after = spans.successor(known), spans.decoded(known)

    async def _split(self, victim: _Stretch) -> _Stretch | None:
        """Cut off a part of what `victim` has before it; None where that cannot be done."""
        stop = victim.stop
        middle = await self._streams.known_middle(victim.at, stop)
        after = spans.decoded(middle) if middle else await self._probed(victim)
        if after is None:
            return None
        stretch = _Stretch(spans.successor(spans.encoded(after)), after, stop)
        if not victim.at < stretch.at < stop:
            return None  # it has got there meanwhile
        victim.stop = stretch.at
        return stretch

    async def _probed(self, victim: _Stretch) -> str | None:
        """Ask the store for a key in the middle of `victim`; what it answers is let in."""

        async def first_behind(text: str) -> str | None:
            question = replace(self._pass.question, after=text, token=None, limit=1)
            answer = await self._pages.ask(question)
            start = spans.successor(spans.encoded(text))
            await self._streams.told(self._pass, answer, start)
            found = answer.objects[0][1].key if answer.objects else None
            is_inside = found is not None and spans.successor(spans.encoded(found)) < victim.stop
            return found if is_inside else None

        stop = victim.stop
        end = None if stop == self._pass.end else spans.decoded(stop)
        try:
            return await split_point(victim.after, end, first_behind)
        except (StoreError, OutOfOrder, NotFromThere, Outdated) as error:
            log.debug("%r: not split: %r", victim.after, error)
            return None

"""List a store into the index, so that every page is progress for good.

Flat listings go on at the first gap that earlier pages have left; a directory's own level is listed
by delimiter, and flat when the store cannot do that in time. The order of the keys is checked page
by page: a store that breaks it is never again taken to list in order.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import trio

from backgate.gateway.errors import StoreError, Unreachable
from backgate.gateway.metadata import coverage, merge, names, progress, spans
from backgate.gateway.metadata.changes import News
from backgate.gateway.metadata.file import Outdated
from backgate.gateway.metadata.index import Index
from backgate.gateway.metadata.merge import Told
from backgate.gateway.metadata.pages import Answer, Hopeless, OutOfOrder, Pages, Question
from backgate.gateway.store import ObjectStore

BeforePage = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Pass:
    """One pass over the keys below a prefix."""

    question: Question  # its first
    begun: int  # the last change when it began
    begun_ns: int  # nanoseconds since 1970
    since: int  # number of the first pass whose pages need no repetition
    before_page: BeforePage

    @property
    def first(self) -> bytes:
        return spans.encoded(self.question.prefix)

    @property
    def end(self) -> bytes:
        return spans.end_of(self.first)

    def told(self, answer: Answer, stop: bytes) -> Told:
        number = self.question.number
        return Told(answer.objects, answer.prefixes, stop, answer.asked, answer.asked_ns, number)


async def at_once() -> None:
    """Let the next page be asked for without delay."""
    await trio.lowlevel.checkpoint()


class Crawler:
    """Lists `store` into `index`; any number of listings at once."""

    def __init__(self, store: ObjectStore, index: Index, now_ns: Callable[[], int]) -> None:
        self._name, self._is_ordered = store.name, store.abilities.lists_in_order
        self._index, self._now_ns = index, now_ns
        self._pages = Pages(store, index, now_ns)
        self.news = News()  # told when a page has been let in

    @property
    def page_size(self) -> int:
        """How many keys the next flat page is asked for."""
        return self._pages.size

    async def level(self, prefix: str, patience: float, *, is_refresh: bool) -> None:
        """List the names in the directory `prefix`; they are all known when this returns.

        Raises `StoreError` when a page cannot be had in `patience` seconds; earlier ones stay.
        """
        try:
            await self._repeat(lambda: self._begin(prefix, patience, is_level=True), at_once)
        except Hopeless:
            log.info("%s: %r: cannot be listed by delimiter: flat", self._name, prefix)
            await self.flat(prefix, patience, is_refresh=is_refresh)

    async def flat(self, prefix: str, patience: float, *, is_refresh: bool) -> None:
        """List all keys below `prefix`; they are all known when this returns.

        Without `is_refresh` only those that no page has told yet. Raises as `level`.
        """

        def begin() -> _Pass:
            one = self._begin(prefix, patience, is_level=False)
            return one if is_refresh else replace(one, since=0)

        await self._repeat(begin, at_once)

    async def everything(self, patience: float, before_page: BeforePage = at_once) -> None:
        """List all keys, going on where an earlier pass over everything was interrupted.

        Awaits `before_page` before each page. Raises as `level`.
        """
        done = await self._repeat(lambda: self._resume(patience), before_page)
        self._index.write(progress.crawl_ended, done.question.number, self._now_ns())

    def _begin(self, prefix: str, patience: float, *, is_level: bool) -> _Pass:
        number = self._index.write(progress.new_pass)
        begun, begun_ns = self._index.read(coverage.sequence), self._now_ns()
        question = Question(prefix, is_level, number, patience)
        return _Pass(question, begun, begun_ns, number, at_once)

    def _resume(self, patience: float) -> _Pass:
        due = self._index.write(progress.resumed, self._now_ns())
        question = Question("", False, due.number, patience, token=due.token)
        return _Pass(question, due.begun, due.begun_ns, due.number, at_once)

    async def _repeat(self, begin: Callable[[], _Pass], before_page: BeforePage) -> _Pass:
        """Make a pass, another when what it was built on turns out to be gone."""
        while True:
            one = replace(begin(), before_page=before_page)
            try:
                if not self._is_ordered or not self._index.read(coverage.is_ordered):
                    await self._by_mark(one)
                elif one.question.is_level:
                    await self._level_in_order(one)
                else:
                    await self._flat_in_order(one)
                return one
            except OutOfOrder:
                log.warning("%s: does not list in order: listing it anew", self._name)
                self._index.write(coverage.distrust_order)
            except Outdated:
                log.debug("%s: %r: listing it again", self._name, one.question.prefix)

    async def _flat_in_order(self, one: _Pass) -> None:
        reached, token = one.first, None  # the token goes on at `reached`
        while True:
            start = self._index.read(coverage.gap, one.first, one.end, one.since)
            if start is None:
                return
            question = replace(one.question, token=token)
            if token is None or start != reached:
                known = self._index.read(names.last_before, one.first, start)
                start = spans.successor(known) if known else one.first
                question = replace(question, token=None, after=spans.decoded(known or b""))
            await one.before_page()
            answer = await self._pages.ask(question)
            told = one.told(answer, answer.stop(start, one.end))
            try:
                await self._merge_flat(told, start)
                reached, token = told.stop, answer.token
            except Outdated:
                token = None

    async def _merge_flat(self, told: Told, at: bytes) -> None:
        while at < told.stop:
            at = await self._index.write_behind(len(told.objects), merge.flat, told, at)
        self.news.tell()

    async def _level_in_order(self, one: _Pass) -> None:
        at, question = one.first, one.question
        while True:
            answer = await self._pages.ask(question)
            told = one.told(answer, answer.stop(at, one.end))
            size = len(told.objects) + len(told.prefixes)
            while at < told.stop:
                at = await self._index.write_behind(size, merge.level, told, one.first, at)
            if answer.token is None:
                break
            question = replace(question, token=answer.token)
        self._index.write(merge.level_done, one.first, one.begun, one.begun_ns)
        self.news.tell()

    async def _by_mark(self, one: _Pass) -> None:
        question = one.question
        while True:
            await one.before_page()
            try:
                answer = await self._pages.ask(question)
            except Unreachable:
                raise
            except StoreError:
                if question.token is None or question is not one.question:
                    raise
                question = replace(question, token=None)  # too old to go on from
                continue
            size = len(answer.objects) + len(answer.prefixes)
            await self._index.write_behind(size, merge.marked, one.told(answer, b""))
            self._index.write(progress.reached, question.number, answer.token)
            if answer.token is None:
                break
            question = replace(question, token=answer.token)
        await self._sweep(one)
        self.news.tell()

    async def _sweep(self, one: _Pass) -> None:
        at, end, number = one.first, one.end, one.question.number
        if not one.question.is_level:
            while at < end:
                change = merge.sweep
                at = await self._index.write_behind(0, change, at, end, number, one.begun)
            self._index.write(merge.flat_done, one.first, number, one.begun, one.begun_ns)
            return
        while at < end:
            at = await self._index.write_behind(
                0, merge.sweep_level, one.first, at, number, one.begun
            )
        self._index.write(merge.level_done, one.first, one.begun, one.begun_ns)

"""List a store into the index, so that every page is progress for good.

Flat listings go on at the first gap that earlier pages have left; a directory's own level is listed
by delimiter, and flat when the store cannot do that in time. Order is checked, not trusted: where
nobody vouches for it, a first pass is made without relying on it, and a store that is seen to break
it is never again taken to list in order.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from backgate.gateway.metadata import coverage, merge, progress
from backgate.gateway.metadata.changes import News
from backgate.gateway.metadata.file import Outdated
from backgate.gateway.metadata.index import Index
from backgate.gateway.metadata.pages import Hopeless, NotFromThere, OutOfOrder, Pages, Question
from backgate.gateway.metadata.passes import BeforePage, Pass, at_once
from backgate.gateway.metadata.settling import Settling
from backgate.gateway.metadata.streams import Streams
from backgate.gateway.metadata.unordered import Unordered
from backgate.gateway.store import ObjectStore

log = logging.getLogger(__name__)


class Crawler:
    """Lists `store` into `index`; any number of listings at once."""

    def __init__(
        self,
        store: ObjectStore,
        index: Index,
        settling: Settling,
        now_ns: Callable[[], int],
        page_size: int | None,
    ) -> None:
        self._name, self._abilities = store.name, store.abilities
        self._index, self._settling, self._now_ns = index, settling, now_ns
        self._pages = Pages(store, index, settling, now_ns, page_size)
        self._starts_anywhere = True  # until it is seen not to
        self.news = News()  # told when a page has been let in
        is_sure = store.abilities.listing.order_is_sure
        self._streams = Streams(store, self._pages, index, self.news, is_sure=is_sure)
        self._unordered = Unordered(self._pages, index, self.news)

    @property
    def page_size(self) -> int:
        """How many keys the next flat page is asked for."""
        return self._pages.size

    async def level(self, prefix: str, patience: float, *, is_refresh: bool) -> None:
        """List the names in the directory `prefix`; they are all known when this returns.

        Raises `StoreError` when a page cannot be had in `patience` seconds; earlier ones stay.
        """
        if not self._abilities.listing.delimiter_scans:
            try:
                await self._repeat(lambda: self._begin(prefix, patience, is_level=True), at_once)
            except Hopeless:
                log.info("%s: %r: cannot be listed by delimiter: flat", self._name, prefix)
            else:
                return
        await self.flat(prefix, patience, is_refresh=is_refresh)

    async def flat(self, prefix: str, patience: float, *, is_refresh: bool) -> None:
        """List all keys below `prefix`; they are all known when this returns.

        Without `is_refresh` only those that no page has told yet. Raises as `level`.
        """

        async def begin() -> Pass:
            one = await self._begin(prefix, patience, is_level=False)
            return one if is_refresh else replace(one, since=0)

        await self._repeat(begin, at_once)

    async def everything(self, patience: float, before_page: BeforePage = at_once) -> None:
        """List all keys, going on where an earlier pass over everything was interrupted.

        Awaits `before_page` before each page. Raises as `level`.
        """
        done = await self._repeat(lambda: self._resume(patience), before_page)
        await self._index.write(progress.crawl_ended, done.question.number, self._now_ns())

    async def _begin(self, prefix: str, patience: float, *, is_level: bool) -> Pass:
        number = await self._index.write(progress.new_pass)
        begun, begun_ns = await self._index.read(coverage.sequence), self._now_ns()
        question = Question(prefix, is_level, number, patience)
        settled = self._settling.settled(begun)
        return Pass(question, begun, settled, begun_ns, number, at_once)

    async def _resume(self, patience: float) -> Pass:
        settled = self._settling.settled(await self._index.read(coverage.sequence))
        due = await self._index.write(progress.resumed, settled, self._now_ns())
        question = Question("", False, due.number, patience, token=due.token)
        return Pass(question, due.begun, due.settled, due.begun_ns, due.number, at_once)

    async def _repeat(self, begin: Callable[[], Awaitable[Pass]], before_page: BeforePage) -> Pass:
        """Make a pass, another when what it was built on turns out to be gone."""
        while True:
            one = replace(await begin(), before_page=before_page)
            try:
                await self._run(one)
            except OutOfOrder:
                log.warning("%s: does not list in order: listing it anew", self._name)
                await self._index.write(coverage.distrust_order)
            except NotFromThere:
                log.info("%s: cannot list from a key on: listing from the start", self._name)
                self._starts_anywhere = False
            except Outdated:
                log.debug("%s: %r: listing it again", self._name, one.question.prefix)
            else:
                return one

    async def _run(self, one: Pass) -> None:
        ordering, is_sure = await self._ordering(), self._abilities.listing.order_is_sure
        if ordering == coverage.REFUTED or not self._starts_anywhere:
            await self._unordered.run(one)
        elif one.question.is_level:
            await (self._level_in_order(one) if is_sure else self._unordered.run(one))
        elif is_sure or ordering == coverage.PROVEN:
            question = replace(one.question, token=None)  # it goes on where it has a gap
            await self._streams.run(replace(one, question=question))
        elif not await self._unordered.run(one):
            log.warning("%s: does not list in order: passes are compared whole", self._name)
            is_relied_on = ordering == coverage.PROVEN
            await self._index.write(
                coverage.distrust_order if is_relied_on else coverage.refute_order
            )
        elif not one.question.prefix:
            await self._index.write(coverage.prove_order)

    async def _ordering(self) -> int:
        if not self._abilities.lists_in_order:
            return coverage.REFUTED
        return await self._index.read(coverage.ordering)

    async def _level_in_order(self, one: Pass) -> None:
        at, question = one.first, one.question
        while True:
            answer = await self._pages.ask(question)
            told = one.told(answer, answer.stop(at, one.end))
            size = len(told.objects) + len(told.prefixes)
            while at < told.stop:
                at = await self._index.write_behind(size, merge.level, told, one.first, at)
            if answer.token is None:
                break
            question = answer.following(question)
        done = (one.first, one.begun, one.settled, one.begun_ns)
        await self._index.write(merge.level_done, *done)
        self.news.tell()

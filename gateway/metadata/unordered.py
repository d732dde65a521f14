"""List a store whose order is unknown: mark what is seen, and sweep the rest after a whole pass."""

from dataclasses import replace

from backgate.gateway.errors import Refused, StoreError, Unreachable
from backgate.gateway.metadata import merge, progress
from backgate.gateway.metadata.changes import News
from backgate.gateway.metadata.index import Index
from backgate.gateway.metadata.pages import Answer, Pages
from backgate.gateway.metadata.passes import Pass


class Unordered:
    """Makes one pass after another; of each, a single chain of pages."""

    def __init__(self, pages: Pages, index: Index, news: News) -> None:
        self._pages, self._index, self._news = pages, index, news

    async def run(self, one: Pass) -> bool:
        """List all that `one` asks for; returns True when every page was in order after all.

        Raises `StoreError`, `Hopeless`, and `Outdated` when it has to be begun anew.
        """
        question, is_ordered, last = one.question, True, one.first
        while True:
            await one.before_page()
            try:
                answer = await self._pages.ask(question)
            except (Unreachable, Refused):
                raise
            except StoreError:
                if question.token is None or question is not one.question:
                    raise
                question = replace(question, token=None)  # too old to go on from
                continue
            is_ordered = is_ordered and _goes_on(answer, last)
            last = max([last, *(key for key, _ in answer.objects[-1:]), *answer.prefixes[-1:]])
            size = len(answer.objects) + len(answer.prefixes)
            await self._index.write_behind(size, merge.marked, one.told(answer, b""))
            await self._index.write(progress.reached, question.number, answer.token)
            if answer.token is None:
                break
            question = answer.following(question)
        await self._sweep(one)
        self._news.tell()
        return is_ordered

    async def _sweep(self, one: Pass) -> None:
        at, end, number = one.first, one.end, one.question.number
        since = (number, one.begun, one.settled)
        while at < end:
            if one.question.is_level:
                change = merge.sweep_level
                at = await self._index.write_behind(merge.CHUNK, change, one.first, at, *since)
            else:
                at = await self._index.write_behind(merge.CHUNK, merge.sweep, at, end, *since)
        if one.question.is_level:
            done = (one.first, one.begun, one.settled, one.begun_ns)
            await self._index.write(merge.level_done, *done)
        else:
            await self._index.write(merge.flat_done, one.first, number, one.begun, one.begun_ns)


def _goes_on(answer: Answer, last: bytes) -> bool:
    """True when the names of a page are in order, behind those of the page before it."""
    paths = [key for key, _ in answer.objects]
    for names in (paths, list(answer.prefixes)):
        if names != sorted(names) or (names and names[0] < last):
            return False
    return True

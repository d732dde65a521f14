"""Ask a store for a page of a listing: of a size it copes with, and judged before it is used."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from backgate.gateway.errors import NotFound, StoreError, Unreachable
from backgate.gateway.metadata import coverage, progress, spans
from backgate.gateway.metadata.index import Index
from backgate.gateway.metadata.merge import Item
from backgate.gateway.metadata.pace import LARGEST, Pace, smallest
from backgate.gateway.provider import Page
from backgate.gateway.retry import retried
from backgate.gateway.store import ObjectStore

SLASH = "/"


class OutOfOrder(Exception):
    """A page held a key that belongs before it, or two in the wrong order."""


class Hopeless(Exception):
    """The store answers, but cannot list by delimiter here."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which page is wanted."""

    prefix: str
    is_level: bool  # by delimiter: only the names in the directory `prefix`
    number: int  # of the pass
    patience: float  # seconds that faults are waited out
    after: str = ""  # where to begin, without a token
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One page, and what was known when it was asked for."""

    objects: Sequence[Item]
    prefixes: Sequence[bytes]
    token: str | None
    asked: int  # the last change of the index
    asked_ns: int  # nanoseconds since 1970

    def stop(self, start: bytes, end: bytes) -> bytes:
        """Return where the interval ends that this page, in order, covers from `start` on.

        Raises `OutOfOrder` when its keys do not lie in order, or before `start`.
        """
        keys = [key for key, _ in self.objects]
        for names in (keys, self.prefixes):
            if any(one >= other for one, other in itertools.pairwise(names)):
                raise OutOfOrder
            if names and names[0] < start:
                raise OutOfOrder
        if self.token is None:
            return end
        last_object = spans.successor(keys[-1]) if keys else start
        last_prefix = spans.end_of(self.prefixes[-1]) if self.prefixes else start
        return max(last_object, last_prefix)


class Pages:
    """Asks `store` for pages, and learns how many keys they may have."""

    def __init__(self, store: ObjectStore, index: Index, now_ns: Callable[[], int]) -> None:
        self._store = store.patient(0)
        self._index, self._now_ns = index, now_ns
        size = index.read(progress.progress).page_size or LARGEST
        self._flat, self._level = Pace(size), Pace(size, smallest)

    @property
    def size(self) -> int:
        """How many keys the next flat page is asked for."""
        return self._flat.size

    async def ask(self, question: Question) -> Answer:
        """Return the page; a fault is waited out, with smaller pages, for the patience given.

        Raises `Hopeless` when only a listing by delimiter fails, `StoreError` past the patience
        or when no waiting helps; never `NotFound`.
        """

        async def attempt() -> Answer:
            return await self._attempt(question)

        try:
            counters = self._store.counters
            return await retried(attempt, patience=question.patience, counters=counters)
        except NotFound as error:
            raise StoreError(f"{self._store.name}: cannot be listed: {error}") from error

    async def _attempt(self, question: Question) -> Answer:
        asked, asked_ns = self._index.read(coverage.sequence), self._now_ns()
        pace = self._level if question.is_level else self._flat
        began = trio.current_time()
        try:
            page = await self._store.page(
                question.prefix,
                SLASH if question.is_level else "",
                after=question.after,
                token=question.token,
                limit=pace.size,
            )
        except Unreachable as error:
            if error.retry_after is None:
                pace.failed(trio.current_time() - began)
            self._index.write(progress.page_failed, self._flat.size)
            if question.is_level and pace.is_hopeless and await self._answers(question.prefix):
                raise Hopeless from error
            raise
        pace.succeeded()
        self._index.write(progress.page_told, self._flat.size, question.number, len(page.objects))
        self._judge(question, page)
        objects = {spans.encoded(info.key): info for info in page.objects}
        prefixes = dict.fromkeys(spans.encoded(prefix) for prefix in page.prefixes)
        return Answer(list(objects.items()), list(prefixes), page.token, asked, asked_ns)

    async def _answers(self, prefix: str) -> bool:
        try:
            await self._store.page(prefix, limit=1)
        except Unreachable:
            return False
        return True

    def _judge(self, question: Question, page: Page) -> None:
        """Refuse a page that does not answer the question."""
        prefix, skip = question.prefix, len(question.prefix)
        for key in [*(info.key for info in page.objects), *page.prefixes]:
            if not key.startswith(prefix):
                raise StoreError(f"{self._store.name}: listed {key!r}, not below {prefix!r}")
        if page.token is not None and page.token == question.token:
            raise StoreError(f"{self._store.name}: listing of {prefix!r} does not go on")
        if not question.is_level:
            return
        is_flat = any(SLASH in info.key[skip:] for info in page.objects)
        if is_flat or any(one.find(SLASH, skip) != len(one) - 1 for one in page.prefixes):
            raise Hopeless  # it does not know delimiters

"""Ask a store for a page of a listing: of a size it copes with, and judged before it is used."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import trio

from backgate.gateway.errors import NotFound, StoreError, Unreachable
from backgate.gateway.metadata import coverage, progress, spans
from backgate.gateway.metadata.index import Index
from backgate.gateway.metadata.merge import Item
from backgate.gateway.metadata.pace import LARGEST, Pace, smallest
from backgate.gateway.metadata.settling import Settling
from backgate.gateway.provider import ObjectInfo, Page
from backgate.gateway.retry import retried
from backgate.gateway.store import ObjectStore

SLASH = "/"
EMPTY_MAX = 1000  # pages without a name, one after another; more is no listing
CAREFUL = 125  # keys; the first page of a store that is known to time out


class OutOfOrder(Exception):
    """A page held a key that belongs before it, or two in the wrong order."""


class NotFromThere(Exception):
    """The store does not begin a listing where it is asked to."""


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
    limit: int | None = None  # keys; None: as many as the store copes with
    empty: int = 0  # pages without a name that came before it


@dataclass(frozen=True, slots=True)
class Answer:
    """One page, and what was known when it was asked for."""

    objects: Sequence[Item]
    prefixes: Sequence[bytes]
    token: str | None
    asked: int  # the last change of the index
    settled: int  # the last change that the store is sure to have shown
    asked_ns: int  # nanoseconds since 1970

    def following(self, question: Question) -> Question:
        """Return the question for the page behind this one, the answer to `question`."""
        is_empty = not self.objects and not self.prefixes
        return replace(question, token=self.token, empty=question.empty + 1 if is_empty else 0)

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

    def __init__(
        self,
        store: ObjectStore,
        index: Index,
        settling: Settling,
        now_ns: Callable[[], int],
        page_size: int | None,
    ) -> None:
        self._store = store.patient(0)
        self._index, self._settling, self._now_ns = index, settling, now_ns
        largest = min(LARGEST, store.abilities.limits.page_max)
        first = CAREFUL if store.abilities.listing.is_slow else largest
        size = page_size or first
        self._flat = Pace(size, largest)
        self._level = Pace(size, largest, smallest)

    @property
    def size(self) -> int:
        """How many keys the next flat page is asked for."""
        return self._flat.size

    async def ask(self, question: Question) -> Answer:
        """Return the page; a fault is waited out, with smaller pages, for the patience given.

        Raises `Hopeless` when only a listing by delimiter fails, `NotFromThere`, `StoreError` past
        the patience or when no waiting helps; never `NotFound`.
        """

        async def attempt() -> Answer:
            return await self._attempt(question)

        try:
            counters = self._store.counters
            return await retried(attempt, patience=question.patience, counters=counters)
        except NotFound as error:
            raise StoreError(f"{self._store.name}: cannot be listed: {error}") from error

    async def _attempt(self, question: Question) -> Answer:
        asked, asked_ns = await self._index.read(coverage.sequence), self._now_ns()
        settled = self._settling.settled(asked)
        pace = self._level if question.is_level else self._flat
        limit = question.limit or pace.size
        began = trio.current_time()
        try:
            page = await self._store.page(
                question.prefix,
                SLASH if question.is_level else "",
                after=question.after if question.token is None else "",
                token=question.token,
                limit=limit,
            )
        except Unreachable as error:
            if error.retry_after is None and question.limit is None:
                pace.failed(limit, trio.current_time() - began, trio.current_time())
            await self._index.write(progress.page_failed, self._flat.size)
            if question.is_level and pace.is_hopeless and await self._answers(question.prefix):
                raise Hopeless from error
            raise
        if question.limit is None:
            pace.succeeded(limit, trio.current_time())
        await self._index.write(
            progress.page_told, self._flat.size, question.number, len(page.objects)
        )
        self._judge(question, page)
        objects = {spans.encoded(info.key): info for info in page.objects}
        self._judge_start(question, objects)
        prefixes = dict.fromkeys(spans.encoded(prefix) for prefix in page.prefixes)
        items = list(objects.items())
        return Answer(items, list(prefixes), page.token, asked, settled, asked_ns)

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
        is_endless = question.empty >= EMPTY_MAX
        if page.token is not None and (page.token == question.token or is_endless):
            raise StoreError(f"{self._store.name}: listing of {prefix!r} does not go on")
        if not question.is_level:
            return
        is_flat = any(SLASH in info.key[skip:] for info in page.objects)
        if is_flat or any(one.find(SLASH, skip) != len(one) - 1 for one in page.prefixes):
            raise Hopeless  # it does not know delimiters

    def _judge_start(self, question: Question, objects: dict[bytes, ObjectInfo]) -> None:
        """Expect a page to begin behind the key it was asked to; some begin with it."""
        if not question.after or question.token is not None:
            return
        after = spans.encoded(question.after)
        objects.pop(after, None)
        if objects and next(iter(objects)) < after:
            raise NotFromThere

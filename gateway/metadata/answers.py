"""Answers from the index once what they rest on is known, and a listing to wait for until then.

With shared writers an answer may be old: then it is given, and a refresh runs behind it. Where
listings are strict, each question has the store asked anew.
"""

import copy
from collections.abc import Callable
from typing import TypeAlias, TypeVar

import trio

from backgate.gateway.metadata import coverage, spans
from backgate.gateway.metadata.asking import Asking
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.file import snapshot
from backgate.gateway.metadata.freshness import Freshness
from backgate.gateway.metadata.index import Index
from backgate.gateway.metadata.listings import Listings
from backgate.gateway.metadata.whole import below_confirmed

T = TypeVar("T")
Question: TypeAlias = Callable[[Database], T]
Confirm = Callable[[Database, bytes], int | None]  # when all that matters was confirmed


class Answers:
    """Answers to questions about directories, for any number of tasks."""

    def __init__(
        self, index: Index, listings: Listings, asking: Asking, freshness: Freshness
    ) -> None:
        self._index, self._listings = index, listings
        self._asking, self._freshness = asking, freshness
        self._patience = float("inf")  # a listing has a patience of its own

    def patient(self, patience: float, index: Index, asking: Asking) -> "Answers":
        """Return the same for callers who wait no longer than `patience` seconds for a listing."""
        other = copy.copy(self)
        other._patience, other._index, other._asking = patience, index, asking
        return other

    async def level(self, prefix: str, question: Question[T], *, goes_on: bool = False) -> T:
        """Answer from the index once all names in the directory `prefix` are known.

        An answer that `goes_on` behind another is as old as that one may be.
        """
        if self._freshness.is_strict and not goes_on:
            await self._answer(prefix, lambda _: None, coverage.level_confirmed, is_level=True)
            await self._asking.recheck(prefix)
            return await self._index.read(question)
        return await self._answer(
            prefix, question, coverage.level_confirmed, is_level=True, goes_on=goes_on
        )

    async def everything(self, prefix: str, question: Question[T]) -> T:
        """Answer from the index once all keys below `prefix` are known."""
        return await self._answer(prefix, question, below_confirmed, is_level=False)

    async def _answer(
        self,
        prefix: str,
        question: Question[T],
        confirm: Confirm,
        *,
        is_level: bool,
        goes_on: bool = False,
    ) -> T:
        raw, is_strict = spans.encoded(prefix), self._freshness.is_strict and not goes_on
        since_ns = self._freshness.now_ns() if is_strict else 0  # what was asked before is old

        def ask(db: Database) -> tuple[int | None, T]:
            with snapshot(db):
                return confirm(db, raw), question(db)

        async def is_known() -> bool:
            found = await self._index.read(confirm, raw)
            return found is not None and found >= since_ns

        await trio.lowlevel.checkpoint_if_cancelled()
        confirmed, answer = await self._index.read(ask)
        if is_strict:
            confirmed = None
        elif confirmed is not None and not self._freshness.is_fresh(confirmed):
            self._listings.refresh(prefix, is_level=is_level)
        joined = is_strict  # the first listing may have begun before the question
        while confirmed is None:
            before = self._index.openings, await self._index.read(coverage.epoch)
            await self._listings.wait(
                prefix,
                is_level=is_level,
                is_known=is_known,
                is_refresh=is_strict,
                patience=self._patience,
            )
            confirmed, answer = await self._index.read(ask)
            if joined and not (confirmed is not None and confirmed >= since_ns):
                joined, confirmed = False, None
            elif before == (self._index.openings, await self._index.read(coverage.epoch)):
                break  # listed whole; what still does not count as complete does not exist
        return answer

    async def name(self, parent: str, path: bytes, question: Question[T]) -> tuple[T, bool]:
        """Answer about `path`, in the directory `parent`, and whether that is sure; it may be old.

        Both are of one moment: a listing that ends in between would make what it has just brought
        surely absent.
        """

        def ask(db: Database) -> tuple[T, int | None]:
            with snapshot(db):
                return question(db), coverage.name_confirmed(db, spans.encoded(parent), path)

        answer, confirmed = await self._index.read(ask)
        if confirmed is None or self._freshness.is_strict:
            return answer, False
        if not self._freshness.is_fresh(confirmed):
            self._listings.refresh(parent, is_level=True)
        return answer, True

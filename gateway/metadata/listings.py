"""Listings that somebody waits for, or that run behind an answer: one for all who want the same."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from backgate.gateway.errors import Refused, StoreError, Unreachable
from backgate.gateway.metadata.crawler import Crawler
from backgate.gateway.metadata.health import Errors

GIVING_WAY = 2.0  # seconds that a page of the crawl waits for listings that somebody wants
BREATH = 10.0  # seconds without refreshes behind answers, after one has failed
FIRST_PAUSE = 5.0  # seconds until a listing that was refused is tried again; doubles
LONGEST_PAUSE = 60.0  # seconds; renewed credentials are noticed within this

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Listing:
    """A listing under way."""

    waiters: int = 0
    is_done: bool = False
    is_whole: bool = False  # it has ended well; else `error` says why, or it was cancelled
    error: StoreError | None = None


class Listings:
    """Starts listings in `nursery`; each goes on when those who waited for it are gone."""

    def __init__(
        self, crawler: Crawler, nursery: trio.Nursery, patience: float, errors: Errors
    ) -> None:
        self._crawler, self._nursery, self._patience = crawler, nursery, patience
        self._errors = errors
        self._under_way: dict[tuple[str, bool], _Listing] = {}
        self._not_before = -float("inf")  # trio's time; for refreshes behind answers

    def refresh(self, prefix: str, *, is_level: bool) -> None:
        """List `prefix` behind an answer that was given already."""
        if trio.current_time() >= self._not_before:
            self._start(prefix, is_level, is_refresh=True)

    async def wait(
        self,
        prefix: str,
        *,
        is_level: bool,
        is_known: Callable[[], Awaitable[bool]],
        is_refresh: bool,
        patience: float,
    ) -> None:
        """List `prefix`, and return when that has ended or what is wanted is known.

        With `is_refresh` what is known already is listed again.

        Raises `StoreError` when it cannot be listed, or not within `patience` seconds.
        """
        listing = self._start(prefix, is_level, is_refresh=is_refresh)
        listing.waiters += 1
        try:
            with trio.move_on_after(patience) as scope:
                while not listing.is_done and not await is_known():
                    await self._crawler.news.wait()
        finally:
            listing.waiters -= 1
        if scope.cancelled_caught:
            why = f": {listing.error}" if listing.error else ""
            raise Unreachable(f"the listing of {prefix!r} did not end within {patience:.0f} s{why}")
        if listing.is_done and not listing.is_whole:
            reason = listing.error or "interrupted"
            raise StoreError(f"{prefix!r} cannot be listed: {reason}") from listing.error

    async def quiet(self) -> None:
        """Return when no listing is under way: what runs by itself gives way to them, for a while.

        Who lists one directory after another must not keep the crawl from ever coming to an end.
        """
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(GIVING_WAY):
            while self._under_way:
                await self._crawler.news.wait()

    def _start(self, prefix: str, is_level: bool, *, is_refresh: bool) -> _Listing:
        listing = self._under_way.get((prefix, is_level))
        if listing is None:
            listing = self._under_way[prefix, is_level] = _Listing()
            self._nursery.start_soon(self._run, prefix, is_level, listing, is_refresh)
        return listing

    async def _run(self, prefix: str, is_level: bool, listing: _Listing, is_refresh: bool) -> None:
        try:
            await self._list(prefix, is_level, listing, is_refresh)
            listing.is_whole = True
            await self._errors.succeeded()
        except StoreError as error:
            listing.error = error
            await self._errors.failed(error)
            if not listing.waiters:
                log.warning("%r could not be refreshed: %s", prefix, error)
                self._not_before = trio.current_time() + BREATH
        finally:
            listing.is_done = True
            del self._under_way[prefix, is_level]
            self._crawler.news.tell()

    async def _list(self, prefix: str, is_level: bool, listing: _Listing, is_refresh: bool) -> None:
        """List; for whom waits, one that is refused again and again: credentials may be renewed."""
        run = self._crawler.level if is_level else self._crawler.flat
        until, pause = trio.current_time() + self._patience, FIRST_PAUSE
        while True:
            try:
                await run(prefix, self._patience, is_refresh=is_refresh)
            except Refused as error:
                left = until - trio.current_time()
                if not listing.waiters or left <= 0:
                    raise
                if listing.error is None:
                    log.warning("%r cannot be listed, trying again: %s", prefix, error)
                listing.error = error
                await self._errors.failed(error)
            else:
                return
            await trio.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)

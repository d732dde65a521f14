"""What keeps the index whole and up to date without being asked."""

import logging
from dataclasses import dataclass

import trio

from backgate.gateway.errors import StoreError
from backgate.gateway.metadata import coverage, progress, spans
from backgate.gateway.metadata.crawler import Crawler
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.health import Errors, Requests
from backgate.gateway.metadata.index import Index
from backgate.gateway.metadata.listings import Listings
from backgate.gateway.metadata.passes import BeforePage
from backgate.gateway.metadata.settling import Settling

POLL = 1.0  # seconds; what another process changed is seen within this
FIRST_PAUSE = 15.0  # seconds after a crawl that failed for a reason that no retry mends
LONGEST_PAUSE = 900.0  # seconds; renewed credentials are noticed within this

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What upkeep works with."""

    index: Index
    crawler: Crawler
    listings: Listings
    settling: Settling
    errors: Errors
    requests: Requests


class Upkeep:
    """Crawls when the index is not whole, and follows what other processes change."""

    def __init__(self, parts: Parts) -> None:
        self._parts, self._index = parts, parts.index
        self.is_crawling = False

    async def follow(self) -> None:
        """Look every second for changes of others, and fold the log of our own."""
        while True:
            await self._index.news(POLL)
            try:
                await self._look()
            except StoreError as error:
                log.warning("%s", error)
                await trio.sleep(FIRST_PAUSE)

    async def crawl(self) -> None:
        """List everything whenever that is due, in one process at a time, behind all others."""
        pause = FIRST_PAUSE
        while True:
            try:
                is_done = await self._crawl_if_due()
            except StoreError as error:
                log.warning("the index cannot be completed: %s", error)
                await self._parts.errors.failed(error)
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                pause = FIRST_PAUSE if is_done else pause
                await trio.sleep(POLL)

    async def list_everything(self, patience: float, before_page: BeforePage) -> None:
        """List everything anew, or wait for the process that does so already.

        Raises `StoreError` when a page cannot be had in `patience` seconds.
        """
        number = await self._index.write(progress.begin_crawl)
        while await self._index.read(progress.is_due, number):
            async with self._index.turn() as is_held:
                if is_held:
                    await self._parts.crawler.everything(patience, before_page)
                    await self._parts.errors.succeeded()
                    return
            await before_page()
            await trio.sleep(POLL)

    async def _look(self) -> None:
        await self._index.poll()
        await self._parts.requests.note()
        sequence = await self._index.read(coverage.sequence)
        settled = self._parts.settling.settled(sequence)
        await self._index.tidy(settled)

    async def _crawl_if_due(self) -> bool:
        """Return True when everything has been listed, False when it need not or somebody does."""
        if not await self._index.read(is_crawl_due):
            return False
        async with self._index.turn() as is_held:
            if not is_held:
                return False
            self.is_crawling = True
            try:
                await self._parts.crawler.everything(float("inf"), self._parts.listings.quiet)
            finally:
                self.is_crawling = False
        await self._parts.errors.succeeded()
        log.info("the index is complete: %d objects", await self._objects())
        return True

    async def _objects(self) -> int:
        return (await self._index.read(progress.progress)).objects


def is_crawl_due(db: Database) -> bool:
    """True when a pass over everything is wanted, or was never made."""
    return progress.due(db) or coverage.span_confirmed(db, spans.FIRST, spans.END) is None

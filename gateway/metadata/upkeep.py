"""What keeps the index whole and up to date without being asked."""

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from backgate.gateway.errors import StoreError
from backgate.gateway.metadata import coverage, progress, spans
from backgate.gateway.metadata.crawler import Crawler
from backgate.gateway.metadata.index import Index
from backgate.gateway.metadata.listings import Listings

LOCK = "crawler.lock"  # held by the one process that crawls
POLL = 1.0  # seconds; what another process changed is seen within this
FIRST_PAUSE = 15.0  # seconds after a crawl that failed for a reason that no retry mends
LONGEST_PAUSE = 900.0  # seconds; renewed credentials are noticed within this

log = logging.getLogger(__name__)


class Upkeep:
    """Crawls when the index is not whole, and follows what other processes change."""

    def __init__(self, index: Index, crawler: Crawler, listings: Listings) -> None:
        self._index, self._crawler, self._listings = index, crawler, listings
        self._lock = index.path.with_name(LOCK)
        self.is_crawling = False
        self.last_error: str | None = None  # of the crawl, until one succeeds

    async def follow(self) -> None:
        """Look every second for changes of others, and fold the log of our own."""
        while True:
            await trio.sleep(POLL)
            self._index.poll()
            await self._index.fold()

    async def crawl(self) -> None:
        """List everything whenever that is due, in one process at a time, behind all others."""
        pause = FIRST_PAUSE
        while True:
            if not self._index.read(is_crawl_due):
                await trio.sleep(POLL)
                continue
            with self.turn() as is_held:
                is_done = is_held and await self._crawl_once()
            if is_held and not is_done:
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                pause = FIRST_PAUSE
                await trio.sleep(POLL)

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Try to be the one who crawls; the turn ends with the context, or with the process."""
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(lock)

    async def _crawl_once(self) -> bool:
        self.is_crawling = True
        try:
            await self._crawler.everything(float("inf"), self._listings.quiet)
        except StoreError as error:
            log.warning("the index cannot be completed: %s", error)
            self.last_error = str(error)
            return False
        else:
            self.last_error = None
            log.info("the index is complete: %d objects", self._objects())
            return True
        finally:
            self.is_crawling = False

    def _objects(self) -> int:
        return self._index.read(progress.progress).objects


def is_crawl_due(db: sqlite3.Connection) -> bool:
    """True when a pass over everything is wanted, or was never made."""
    return progress.due(db) or coverage.span_confirmed(db, spans.FIRST, spans.END) is None

"""Keeps the blocks of objects: on disk within a limit, and in memory for a moment.

What was just fetched stays in a small window of memory, so that tasks which come a moment later
need no disk. Disk is written by one thread behind a bounded queue that drops when it is full, and
at a bounded pace: a store that is as fast as a disk needs no cache, and a cold stream must not wait
for one. A stream that outruns the disk is not kept for a while, for every GiB kept costs a second
of CPU; short reads still are. A cache that fails is only slow: reads go on without it.
"""

import logging
import math
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from backgate.gateway.slab import BLOCK, Place, Slab, Version
from backgate.gateway.source import Data
from backgate.gateway.units import MIB

log = logging.getLogger(__name__)

__all__ = ["BLOCK", "BlockCache", "BlockStatus", "Flight", "Run", "Version", "open_blocks"]

WINDOW = 32 * MIB  # bytes of fetched runs in memory; four long runs
QUEUE = 16 * MIB  # bytes that wait for the disk; mostly the same memory as the window's
PACE = 100 * MIB  # bytes per second to disk
SHORT = 1 * MIB  # bytes; a longer run is part of a stream
OUTRUN = 2.0  # seconds that no stream is kept after one has outrun the disk
CLOSE_WITHIN = 1.0  # seconds; what is not written by then is not kept
PAUSE = 60.0  # seconds without caching after the disk failed
DISK_READS = 4  # threads that read the cache at a time


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring blocks in one buffer."""

    first: int  # block
    data: memoryview

    @property
    def stop(self) -> int:
        """The block behind the last."""
        return self.first - (-len(self.data) // BLOCK)


class Flight:
    """A run of blocks that somebody fetches; `run` stays None when that failed."""

    def __init__(self, first: int, stop: int, *, is_on_disk: bool) -> None:
        self.first, self.stop = first, stop  # blocks
        self.is_on_disk = is_on_disk
        self.ended = trio.Event()
        self.run: Run | None = None


@dataclass(frozen=True, slots=True)
class BlockStatus:
    """What the block cache says of itself."""

    used: int  # bytes on disk
    limit: int  # bytes on disk; 0: there is no cache on disk
    hits: int  # blocks found on disk
    misses: int  # blocks fetched
    dropped: int  # bytes not kept because the disk was too slow or failed


class BlockCache:
    """Blocks by object version and number. All but the disk belongs to trio's thread."""

    def __init__(self, slab: Slab | None = None, limit: int = 0) -> None:
        self._slab, self._limit = slab, limit
        self._recent: OrderedDict[tuple[bytes, int], Run] = OrderedDict()  # by first block
        self._holder: dict[tuple[bytes, int], Run] = {}  # every block of the recent runs
        self._recent_size = 0  # bytes
        self._writer = None if slab is None else _Writer(slab)
        self._limiter = trio.CapacityLimiter(DISK_READS)
        self._hits = self._misses = 0
        self.flights: dict[tuple[bytes, int], Flight] = {}  # every block that is on its way

    def recent(self, version: Version, number: int) -> Run | None:
        """Return a run in memory that holds block `number`."""
        run = self._holder.get((version.identity, number))
        if run is not None:
            self._recent.move_to_end((version.identity, run.first))
        return run

    def has(self, version: Version, first: int, stop: int) -> list[bool]:
        """Tell of each of the blocks [first, stop) whether it is on disk."""
        if self._slab is None:
            return [False] * (stop - first)
        return [place is not None for place in self._slab.places(version, first, stop)]

    async def get(self, version: Version, first: int, stop: int) -> Run | None:
        """Return the blocks from `first` on that are on disk without a gap, at most to `stop`."""
        slab = self._slab
        if slab is None:
            return None
        data = await trio.to_thread.run_sync(
            _load, slab, version, first, stop, limiter=self._limiter
        )
        if not data:
            return None
        run = Run(first, data)
        self._hits += run.stop - first
        self._remember(version, run)
        return run

    def put(self, version: Version, first: int, data: Data) -> Run:
        """Keep whole blocks just fetched: in memory now, on disk soon or not at all."""
        run = Run(first, memoryview(data).toreadonly())
        self._misses += run.stop - first
        self._remember(version, run)
        if self._writer is not None:
            self._writer.add(version, run)
        return run

    def status(self) -> BlockStatus:
        """Return what there is to tell an administrator."""
        if self._slab is None or self._writer is None:
            return BlockStatus(0, 0, self._hits, self._misses, 0)
        dropped = self._writer.dropped
        return BlockStatus(self._slab.used, self._limit, self._hits, self._misses, dropped)

    def synchronize(self) -> None:
        """Block until everything that was put is on disk, or was dropped."""
        if self._writer is not None:
            self._writer.drain()

    def close(self) -> None:
        """Write what waits, and let go of the file."""
        if self._writer is not None:
            self._writer.close()
        if self._slab is not None:
            self._slab.close()

    def _remember(self, version: Version, run: Run) -> None:
        self._let_go(version.identity, run.first)
        self._recent[version.identity, run.first] = run
        self._recent_size += len(run.data)
        for number in range(run.first, run.stop):
            self._holder[version.identity, number] = run
        while self._recent_size > WINDOW and len(self._recent) > 1:
            self._let_go(*next(iter(self._recent)))

    def _let_go(self, identity: bytes, first: int) -> None:
        run = self._recent.pop((identity, first), None)
        if run is None:
            return
        self._recent_size -= len(run.data)
        for number in range(run.first, run.stop):
            if self._holder.get((identity, number)) is run:
                del self._holder[identity, number]


@contextmanager
def open_blocks(directory: Path, limit: int) -> Iterator[BlockCache]:
    """Provide the block cache below `directory`, of at most `limit` bytes on disk.

    One process owns it. Another one, and any process whose disk fails, gets a cache that only has
    memory.
    """
    slab = _open_slab(directory, limit) if limit > 0 else None
    cache = BlockCache(slab, limit)
    try:
        yield cache
    finally:
        cache.close()


def _load(slab: Slab, version: Version, first: int, stop: int) -> memoryview:
    places: list[Place] = []
    for place in slab.places(version, first, stop):
        if place is None:
            break
        places.append(place)
    return slab.read(version, first, places)


def _open_slab(directory: Path, limit: int) -> Slab | None:
    path = directory / "blocks"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(directory, 0o700)
        return Slab(path, limit)
    except BlockingIOError:
        log.info("block cache %s: another process has it, reading without", path)
    except OSError as error:
        log.warning("block cache %s: %s, reading without", path, error.strerror)
    return None


class _Writer:
    """The thread that writes blocks to disk, and what waits for it."""

    def __init__(self, slab: Slab) -> None:
        self._slab = slab
        self._waiting: deque[tuple[Version, Run]] = deque()
        self._waiting_size = 0  # bytes, with what is being written
        self._changed = threading.Condition()
        self._is_closing = False
        self._closes_at = math.inf  # on the monotonic clock
        self._paused_until = self._outrun_until = 0.0  # on the monotonic clock
        self._has_failed = False  # and that was said
        self.dropped = 0  # bytes
        self._thread = threading.Thread(target=self._work, name="block cache", daemon=True)
        self._thread.start()

    def add(self, version: Version, run: Run) -> None:
        size, now = len(run.data), time.monotonic()
        with self._changed:
            is_full = self._waiting_size > 0 and self._waiting_size + size > QUEUE
            if is_full and size > SHORT:
                self._outrun_until = now + OUTRUN
            is_outrun = size > SHORT and now < self._outrun_until
            if is_full or is_outrun or now < self._paused_until:
                self.dropped += size
                return
            self._waiting.append((version, run))
            self._waiting_size += size
            self._changed.notify_all()

    def drain(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting_size == 0)

    def close(self) -> None:
        """Write what waits, unless that takes long: it is but a cache."""
        with self._changed:
            self._closes_at = time.monotonic() + CLOSE_WITHIN
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closing)
                if not self._waiting or time.monotonic() > self._closes_at:
                    return
                version, run = self._waiting.popleft()
            self._write(version, run)
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing, len(run.data) / PACE)
                self._waiting_size -= len(run.data)
                self._changed.notify_all()

    def _write(self, version: Version, run: Run) -> None:
        try:
            self._slab.write(version, run.first, run.data)
        except OSError as error:
            self._paused_until = time.monotonic() + PAUSE
            self.dropped += len(run.data)
            if not self._has_failed:
                path, reason = self._slab.path, error.strerror
                log.warning("block cache %s: %s, caching pauses", path, reason)
            self._has_failed = True
        else:
            if self._has_failed:
                log.info("block cache %s: caching again", self._slab.path)
            self._has_failed = False

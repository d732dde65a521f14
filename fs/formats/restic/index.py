"""Where each blob of a repository lies: all its index files, as a few sorted tables on local disk.

What an earlier mount learnt is found again; a new index file costs one small table; tables are
merged when they become many. Only index files are ever read for it, and memory stays bounded.
"""

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import trio

from backgate.fs.formats.restic.crypto import Unsound
from backgate.fs.formats.restic.index_build import Records, merge
from backgate.fs.formats.restic.segment import Location, Segment
from backgate.gateway.errors import Damaged, NotFound, StoreError

RUN = 128 * 1024  # records gathered before they are sorted and written: 25 MB while that happens
SEGMENTS_MAX = 8  # tables that a look-up may have to search
SMALL = 0.5  # tables are merged into the largest once they have this part of its records
READERS = 2  # index files read ahead while one is parsed
STALE = 3600.0  # seconds after which a temporary file is nobody's any more
SUFFIX = ".index"

log = logging.getLogger(__name__)

Load = Callable[[bytes], Awaitable[bytes]]  # index id -> its JSON, checked


class BlobIndex:
    """All locations of all blobs. `update` says which index files count."""

    def __init__(
        self, where: str, directory: Path, load: Load, workers: trio.CapacityLimiter
    ) -> None:
        self._where, self._directory, self._load = where, directory, load
        self._workers = workers
        self._segments: Sequence[Segment] = ()
        self._updating = trio.Lock()
        self.ids: frozenset[bytes] = frozenset()  # index files that were asked for last
        self.damaged: dict[bytes, Damaged] = {}  # index files that could not be used, by id

    @property
    def count(self) -> int:
        """Locations known."""
        return sum(segment.count for segment in self._segments)

    def find(self, blob: bytes) -> list[Location]:
        """Return every place where `blob` lies; empty when no index file knows it."""
        found: list[Location] = []
        for segment in self._segments:
            found += segment.find(blob)
        return found

    async def update(self, ids: Collection[bytes]) -> None:
        """Know what the index files `ids` say, and nothing else.

        A damaged one is remembered in `damaged`, one that has gone is passed over. Raises
        `StoreError` when one cannot be read; what was read is kept for the next try.
        """
        wanted = frozenset(ids)
        if wanted == self.ids:
            return
        async with self._updating:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            kept = await trio.to_thread.run_sync(self._still_useful, wanted)
            known = frozenset[bytes]().union(*(segment.index_ids for segment in kept))
            made = await self._read(sorted(wanted - known))
            segments = [*kept, *made]
            if len(segments) > SEGMENTS_MAX:
                segments = await trio.to_thread.run_sync(self._merged, segments)
            self._segments, self.ids = segments, wanted
            await trio.to_thread.run_sync(self._clean_up, {one.path for one in segments})

    def _still_useful(self, wanted: frozenset[bytes]) -> list[Segment]:
        """Tables, here or left by an earlier run, made of wanted index files only; none twice."""
        opened = {segment.path: segment for segment in self._segments}
        for path in self._directory.glob(f"*{SUFFIX}"):
            if path not in opened:
                try:
                    opened[path] = Segment(path)
                except (OSError, ValueError) as error:
                    log.info("the index is made again: %s", error)
                    path.unlink(missing_ok=True)
        useful: list[Segment] = []
        known: frozenset[bytes] = frozenset()
        for segment in sorted(opened.values(), key=lambda one: -len(one.index_ids)):
            if segment.index_ids <= wanted and known.isdisjoint(segment.index_ids):
                useful.append(segment)
                known |= segment.index_ids
        return useful

    async def _read(self, ids: Sequence[bytes]) -> list[Segment]:
        made: list[Segment] = []
        self.damaged = {}
        failures: list[StoreError] = []
        send, receive = trio.open_memory_channel[tuple[bytes, bytes]](0)
        records = Records()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._load_all, ids, send, failures)
            async for index_id, data in receive:
                await self._add(records, index_id, data)
                if records.count >= RUN:
                    made.append(await self._written(records))
                    records = Records()
        if records.index_ids:
            made.append(await self._written(records))
        if failures:
            raise failures[0]
        return made

    async def _load_all(
        self,
        ids: Iterable[bytes],
        send: trio.MemorySendChannel[tuple[bytes, bytes]],
        failures: list[StoreError],
    ) -> None:
        readers = trio.Semaphore(READERS)
        async with send, trio.open_nursery() as nursery:
            for index_id in ids:
                await readers.acquire()
                if failures:
                    return
                nursery.start_soon(self._load_one, index_id, send, failures, readers)

    async def _load_one(
        self,
        index_id: bytes,
        send: trio.MemorySendChannel[tuple[bytes, bytes]],
        failures: list[StoreError],
        readers: trio.Semaphore,
    ) -> None:
        try:
            await send.send((index_id, await self._load(index_id)))
        except Damaged as error:
            self._note(index_id, error)
        except NotFound:
            log.debug("index file %s has gone", index_id.hex())  # by a prune, after the listing
        except StoreError as error:
            failures.append(error)
        finally:
            readers.release()

    async def _add(self, records: Records, index_id: bytes, data: bytes) -> None:
        try:
            await trio.to_thread.run_sync(records.add, index_id, data, limiter=self._workers)
        except Unsound as error:
            where = f"{self._where}index/{index_id.hex()}"
            self._note(index_id, Damaged(where, None, str(error)))

    def _note(self, index_id: bytes, error: Damaged) -> None:
        log.warning("an index file is left out: %s", error)
        self.damaged[index_id] = error

    async def _written(self, records: Records) -> Segment:
        path = self._path(records.index_ids)
        await trio.to_thread.run_sync(records.write, path, limiter=self._workers)
        return await trio.to_thread.run_sync(Segment, path, limiter=self._workers)

    def _merged(self, segments: Sequence[Segment]) -> list[Segment]:
        largest = max(segments, key=lambda one: one.count)
        others = [segment for segment in segments if segment is not largest]
        if sum(segment.count for segment in others) > SMALL * largest.count:
            others.append(largest)
        path = self._path(index_id for segment in others for index_id in segment.index_ids)
        merge(others, path)
        return [*(one for one in segments if one not in others), Segment(path)]

    def _path(self, index_ids: Iterable[bytes]) -> Path:
        name = hashlib.sha256(b"".join(sorted(index_ids))).hexdigest()
        return self._directory / f"{name}{SUFFIX}"

    def _clean_up(self, used: Collection[Path]) -> None:
        """Remove tables that are no longer used; whoever has one open goes on reading it."""
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError):
                if path.suffix == SUFFIX:
                    if path not in used:
                        path.unlink()
                elif time.time() - path.stat().st_mtime > STALE:
                    path.unlink()

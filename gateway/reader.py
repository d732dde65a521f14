"""Read any range of one object with few, large, shared requests.

Reads are rounded out to whole blocks; a run of missing blocks costs one GET; and a block already on
its way is never asked for twice, however many tasks want it, through whatever reader. A read inside
one run is a slice of the fetched buffer: no byte is copied on the way to the kernel.
"""

from collections.abc import Sequence

import trio

from backgate.gateway.blocks import BLOCK, BlockCache, Flight, Run, Version
from backgate.gateway.errors import BackgateError, Replaced
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data
from backgate.gateway.store import ObjectStore
from backgate.gateway.units import MIB

# A longer GET delays its first byte more than it saves. The one block more is for 16 MiB that do
# not begin with a block: they stay one GET.
LONGEST_RUN = 16 * MIB // BLOCK + 1  # blocks


class ObjectReader:
    """A `Source` over one version of one object, for any number of tasks at once."""

    def __init__(self, store: ObjectStore, info: ObjectInfo, blocks: BlockCache) -> None:
        self.size = info.size
        self._store, self._info, self._blocks = store, info, blocks
        self._version = Version.of(store.name, info)

    async def read_at(self, offset: int, length: int) -> Data:
        """Return `length` bytes at `offset`, fewer only where the object ends.

        Raises `Replaced` if the object changed under us, `StoreError` past the deadline.
        """
        stop = min(offset + length, self.size)
        if offset >= stop:
            await trio.lowlevel.checkpoint()
            return b""
        pieces: list[Data] = []
        for run in await self._cover(offset // BLOCK, (stop - 1) // BLOCK + 1):
            begin = run.first * BLOCK  # runs may overlap: each goes on where the one before ended
            pieces.append(run.data[offset - begin : stop - begin])
            offset += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _cover(self, first: int, stop: int) -> list[Run]:
        """Return runs, ascending, that together hold the blocks [first, stop)."""
        parts, ours = self._plan(first, stop)
        await self._fly_all(ours)
        runs: list[Run] = []
        for part in parts:
            if isinstance(part, Run):
                runs.append(part)
                continue
            await part.ended.wait()
            if part.run is not None:
                runs.append(part.run)
            else:  # the GET of another task failed: try ourselves
                runs += await self._cover(max(first, part.first), min(stop, part.stop))
        return runs

    def _plan(self, first: int, stop: int) -> tuple[list[Run | Flight], list[Flight]]:
        """Return where the blocks are or come from, and the flights that we claimed to fly."""
        parts: list[Run | Flight] = []
        ours: list[Flight] = []
        while first < stop:
            part: Run | Flight | None = self._blocks.recent(self._version, first)
            part = part or self._blocks.flights.get((self._version.identity, first))
            if part is None:
                part = self._claim(first, min(stop, first + LONGEST_RUN))
                ours.append(part)
            parts.append(part)
            first = part.stop
        return parts, ours

    def _claim(self, first: int, limit: int) -> Flight:
        """Claim the run of blocks from `first` on that come the same way: from disk, or not."""
        on_disk = self._blocks.has(self._version, first, limit)
        stop = first + 1
        while stop < limit and on_disk[stop - first] == on_disk[0] and self._is_free(stop):
            stop += 1
        flight = Flight(first, stop, is_on_disk=on_disk[0])
        for number in range(first, stop):
            self._blocks.flights[self._version.identity, number] = flight
        return flight

    def _is_free(self, number: int) -> bool:
        key = (self._version.identity, number)
        return (
            key not in self._blocks.flights and self._blocks.recent(self._version, number) is None
        )

    async def _fly_all(self, flights: Sequence[Flight]) -> None:
        if len(flights) == 1:
            await self._fly(flights[0])
            return
        errors: list[BackgateError] = []

        async def fly(flight: Flight) -> None:
            try:
                await self._fly(flight)
            except BackgateError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for flight in flights:
                nursery.start_soon(fly, flight)
        if errors:
            raise errors[0]

    async def _fly(self, flight: Flight) -> None:
        first, stop = flight.first, flight.stop
        try:
            run = None
            if flight.is_on_disk:
                run = await self._blocks.get(self._version, first, stop)
            if run is None or run.stop < stop:  # what lay on disk was damaged, or has given way
                run = await self._fetch(first, stop)
            flight.run = run
        finally:
            for number in range(first, stop):
                del self._blocks.flights[self._version.identity, number]
            flight.ended.set()

    async def _fetch(self, first: int, stop: int) -> Run:
        start, end = first * BLOCK, min(stop * BLOCK, self.size)
        data = await self._store.get(self._info.key, start, end, self._info.etag or None)
        if len(data) != end - start:
            raise Replaced(
                f"{self._store.name}: {self._info.key!r}: {len(data)} bytes came for "
                f"[{start}, {end}): no longer the object of {self.size} bytes",
                key=self._info.key,
            )
        return self._blocks.put(self._version, first, data)

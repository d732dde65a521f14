"""How an archive's bytes are had while it is indexed: forward only, in a worker thread."""

from typing import Protocol

import trio

from backgate.gateway.errors import Damaged
from backgate.gateway.source import Source
from backgate.gateway.units import KIB, MIB

LONGEST_READ = 8 * MIB  # bytes in one request
SHORTEST_READ = 64 * KIB  # behind a large member: a header, or the beginning of a run of small ones
SKIP_FROM = 8 * MIB  # bytes of data that are cheaper not to read; below, one large request is


class Forward(Protocol):
    """The plain bytes of an archive, for one thread that goes forward."""

    where: str  # what messages call it

    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes; `offset` is never below that of the call before.

        Raises `Damaged` where the archive ends earlier, `StoreError`, and `trio.Cancelled`.
        """

    def finish(self) -> None:
        """Check what can be checked of the bytes that nobody asked for."""


class PlainArchive:
    """An archive that is not compressed: small members are read in bulk, large data is skipped.

    A run of small members costs one request of 8 MiB for each 8 MiB; a member larger than that
    costs one short request for the header behind it. So an archive of S bytes never costs many more
    than S / 4 MiB.
    """

    def __init__(self, where: str, skipping: Source, sequential: Source) -> None:
        self.where = where
        self._skipping, self._sequential = skipping, sequential
        self._start = 0  # of what is in `_data`
        self._data = b""
        self._next_read = LONGEST_READ

    def read_at(self, offset: int, length: int) -> bytes:
        begin = offset - self._start
        if begin + length > len(self._data):
            missing = offset + length - self._skipping.size
            if missing > 0:
                reason = f"truncated: {missing} bytes are missing"
                raise Damaged(self.where, self._skipping.size, reason)
            self._fetch(offset, length)
            begin = 0
        return self._data[begin : begin + length]

    def finish(self) -> None:
        """Nothing lies behind the end of the archive that would matter."""

    def _fetch(self, offset: int, length: int) -> None:
        kept = self._data[offset - self._start :]
        fetch_at = offset + len(kept)
        is_skip = fetch_at - (self._start + len(self._data)) >= SKIP_FROM
        size = SHORTEST_READ if is_skip else self._next_read
        self._next_read = min(2 * size, LONGEST_READ)
        size = max(size, length - len(kept))
        source = self._skipping if size < LONGEST_READ else self._sequential
        size = min(size, source.size - fetch_at)
        more = bytes(trio.from_thread.run(source.read_at, fetch_at, size))
        if len(more) < size:
            raise Damaged(self.where, fetch_at + len(more), "the object ends too early")
        self._start, self._data = offset, kept + more

"""A source as a blocking file: what code in a worker thread reads compressed bytes from."""

import trio

from backgate.gateway.errors import Damaged
from backgate.gateway.source import Source
from backgate.gateway.units import MIB

FIRST_READ = MIB  # bytes in the first request; each later one is twice as large
LONGEST_READ = 8 * MIB  # bytes in one request


class PackedFile:
    """Reads `[start, stop)` of `source` once, forward, for one thread that trio started.

    Every method may raise `StoreError`, and `trio.Cancelled` when the task that waits for the
    thread is cancelled.
    """

    def __init__(
        self,
        where: str,
        source: Source,
        *,
        start: int = 0,
        stop: int | None = None,
        first_read: int = FIRST_READ,
    ) -> None:
        self.where, self.source = where, source
        self._stop = source.size if stop is None else min(stop, source.size)
        self._data = b""
        self._at = 0  # in `_data`
        self._end = start  # of `_data`, in the source
        self._next_read = first_read

    @property
    def position(self) -> int:
        """The offset of the next byte."""
        return self._end - len(self._data) + self._at

    def some(self) -> tuple[bytes, int]:
        """Return bytes at hand and where among them the next one is; no more: it is at the end.

        `skip` says how many were taken.
        """
        if self._at == len(self._data):
            self._data, self._at = self._fetch(self._next_read), 0
        return self._data, self._at

    def skip(self, length: int) -> None:
        """Take `length` of the bytes that `some` gave."""
        self._at += length

    def read(self, length: int) -> bytes:
        """Return `length` bytes, fewer only where the file ends."""
        short = length - (len(self._data) - self._at)
        if short > 0:
            self._data = self._data[self._at :] + self._fetch(max(short, self._next_read))
            self._at = 0
        found = self._data[self._at : self._at + length]
        self._at += len(found)
        return found

    def exactly(self, length: int) -> bytes:
        """Return `length` bytes; `Damaged` where the file ends before."""
        found = self.read(length)
        if len(found) < length:
            raise self.damaged("truncated: it ends in the middle of the compressed data")
        return found

    def pass_over(self, length: int) -> None:
        """Take `length` bytes that nobody wants."""
        while length:
            length -= len(self.exactly(min(length, FIRST_READ)))

    def give_back(self, data: bytes) -> None:
        """Put bytes that were read last in front of those to come."""
        self._data = data + self._data[self._at :]
        self._at = 0

    def damaged(self, reason: str) -> Damaged:
        """Return the error that says so of the bytes at the current position."""
        return Damaged(self.where, self.position, reason)

    def _fetch(self, length: int) -> bytes:
        length = min(length, self._stop - self._end)
        if length <= 0:
            return b""
        data = bytes(trio.from_thread.run(self.source.read_at, self._end, length))
        if len(data) < length:
            raise Damaged(self.where, self._end + len(data), "the object ends too early")
        self._end += length
        self._next_read = min(2 * self._next_read, LONGEST_READ)
        return data

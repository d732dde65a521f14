"""A request's body as a file, so that each piece of it has a socket time-out of its own.

Bytes given whole are sent by one sendall(), whose time-out counts for all of them: at 5 Mbit/s,
8 MiB would never pass within ten seconds.
"""

import os
import time

from backgate.gateway.provider import Body
from backgate.gateway.units import KIB

PIECE = 256 * KIB  # bytes; urllib3 asks for 16 KiB at a time, and takes what it gets
START = 60.0  # seconds that a request may take whatever its size
SLOWEST = 16 * KIB  # bytes per second; an upload or a download below this is a fault


def as_sent(body: Body) -> "bytes | PieceByPiece":
    """Return `body` as a request takes it: one piece goes out together with the headers."""
    return bytes(body) if len(body) <= PIECE else PieceByPiece(body)


class PieceByPiece:
    """A file over `body`, without a copy; it refuses to go on when the sending takes too long."""

    def __init__(self, body: Body) -> None:
        self._view = memoryview(body).cast("B")
        self._at = 0
        self._until = time.monotonic() + START + len(self._view) / SLOWEST

    def __len__(self) -> int:
        return len(self._view)

    def read(self, length: int | None = None) -> memoryview:
        if time.monotonic() > self._until:
            raise TimeoutError("the body was taken too slowly")
        start = self._at
        whole = len(self._view) if length is None or length < 0 else max(length, PIECE)
        self._at = min(len(self._view), start + whole)
        return self._view[start : self._at]

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._view)}[whence]
        self._at = min(len(self._view), max(0, origin + offset))
        return self._at

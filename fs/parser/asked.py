"""The worker's side of the conversation, and the disks as it sees them: through the gateway's eyes.

Bytes of a source come in blocks, of which the worker keeps the last ones: whatever reads a file
system reads the same few blocks over and over.
"""

import socket
from collections.abc import Iterator

import msgspec
from cachetools import LRUCache

from backgate.fs.parser.messages import (
    FRAME_MAX,
    LENGTH,
    WANT_MAX,
    Given,
    GivenFile,
    Heard,
    Lost,
    Message,
    NoFile,
    Request,
    Want,
    WantFile,
    frame,
)
from backgate.fs.volume import Extent
from backgate.gateway.errors import Damaged

BLOCK = 1 << 20  # bytes; the usual block of a disk's backup
KEPT = 64 << 20  # bytes of blocks; a walk over 20,000 files touches fewer on most file systems


class NotGiven(BaseException):
    """The gateway could not give what was asked for. Not an `Exception`: no parser may take it for
    damage and go on.
    """


class Gateway:
    """The gateway, at the other end of `connection`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._decode = msgspec.msgpack.Decoder(Heard).decode

    def request(self) -> Request | None:
        """Return the next request; None when the gateway has gone."""
        heard = self._receive()
        if isinstance(heard, Given | GivenFile | NoFile):
            raise TypeError(f"{type(heard).__name__} was not asked for")
        return heard  # type: ignore[return-value]

    def say(self, message: Message) -> None:
        """Send an answer."""
        self._connection.sendall(frame(message))

    def want(self, source: int, offset: int, length: int) -> bytes:
        """Return bytes of a source; `NotGiven`, or `Damaged` while volumes are looked for."""
        self.say(Want(source, offset, length))
        given = self._receive()
        if isinstance(given, Lost) and given.is_damage:
            raise Damaged("", offset, given.reason)
        if not isinstance(given, Given) or len(given.data) != length:
            raise NotGiven
        return given.data

    def want_file(self, disk: int, name: str) -> "tuple[int, int] | None":
        """Return number and size of the file `name` beside a disk's; None: it may not be had.

        Raises `NotGiven`: what could not be asked for is not missing; `Damaged`: they are too many.
        """
        self.say(WantFile(disk, name))
        given = self._receive()
        if isinstance(given, Lost) and given.is_damage:
            raise Damaged("", None, given.reason)
        if isinstance(given, NoFile):
            return None
        if not isinstance(given, GivenFile):
            raise NotGiven
        return given.source, given.size

    def _receive(self) -> Heard | None:
        head = self._exactly(LENGTH.size)
        if head is None:
            return None
        (length,) = LENGTH.unpack(head)
        if length > FRAME_MAX:
            raise ValueError(f"a message of {length} bytes")
        data = self._exactly(length)
        return None if data is None else self._decode(data)

    def _exactly(self, length: int) -> bytearray | None:
        data = bytearray(length)
        view, have = memoryview(data), 0
        while have < length:
            count = self._connection.recv_into(view[have:])
            if not count:
                return None
            have += count
        return data


class Blocks:
    """The blocks of all sources that were asked for last."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._kept: LRUCache[tuple[int, int], bytes] = LRUCache(KEPT, getsizeof=len)

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()

    def read(self, source: int, size: int, offset: int, length: int) -> bytes:
        """Return `[offset, offset + length)` of a source of `size` bytes, all of it."""
        stop = offset + length
        pieces = []
        while offset < stop:
            number = offset // BLOCK
            block = self._kept.get((source, number))
            if block is None:
                block = self._fetch(source, size, number, stop)
            begin = offset - number * BLOCK
            pieces.append(block[begin : begin + stop - offset])
            offset += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _fetch(self, source: int, size: int, number: int, stop: int) -> bytes:
        """Ask for a block, and with it for those missing behind it that are wanted too."""
        last = number + 1
        while (
            last * BLOCK < stop
            and (last - number) * BLOCK < WANT_MAX
            and (source, last) not in self._kept
        ):
            last += 1
        start = number * BLOCK
        data = self._gateway.want(source, start, min(last * BLOCK, size) - start)
        for at in range(0, len(data), BLOCK):
            self._kept[source, number + at // BLOCK] = data[at : at + BLOCK]
        return data[:BLOCK]


class SourceDevice:
    """A device that is one of the gateway's sources."""

    def __init__(self, blocks: Blocks, source: int, size: int) -> None:
        self._blocks, self.source, self.size = blocks, source, size

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        if length <= 0 or offset < 0:
            return b""
        return self._blocks.read(self.source, self.size, offset, length)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        length = min(length, self.size - offset)
        if length > 0:
            yield Extent(length, self.source, offset)

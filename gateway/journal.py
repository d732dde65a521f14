"""The crash journal: what the gateway must know again after a kill -9 or a loss of power.

A log of small records, each with its length and checksum. `append` survives the death of the
process, `synchronize` that of the machine; concurrent callers share one fsync. A record that was
torn by a crash ends the log. Every start writes it anew with what still matters, and so does a log
that has grown long.

Anybody may read it with `read_journal` while no gateway runs.
"""

import errno
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import trio

from backgate.gateway.local_file import reserve, synchronize_directory
from backgate.gateway.records import Record, State
from backgate.gateway.units import MIB

JOURNAL = "journal"
LENGTH_MAX = 256 * MIB  # bytes of one record; a longer length is a torn one
COMPACT_FROM = 8 * MIB  # bytes appended until the log is written anew
RESERVE = MIB  # bytes kept free behind the end: a disk that is full must not stop what empties it
_FRAME = struct.Struct("<II")  # length and CRC-32 of what follows

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)

log = logging.getLogger(__name__)


def read_journal(directory: Path) -> tuple[State, int]:
    """Return what the journal in `directory` says, and how many bytes at its end say nothing.

    A journal that is not there says nothing.
    """
    state = State()
    path = directory / JOURNAL
    if not path.exists():
        return state, 0
    data = path.read_bytes()
    good = 0
    for stop, record in _records(data):
        state.apply(record)
        good = stop
    return state, len(data) - good


class Journal:
    """The open journal of one spool.

    `state` is what all records together say; `torn` how many bytes at its end said nothing.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / JOURNAL
        self.state, self.torn = read_journal(directory)
        if self.torn:
            self._keep_aside(directory / f"{JOURNAL}.torn")
            log.warning("%s: the last %d bytes are torn and were left out", self._path, self.torn)
        self._descriptor = -1
        self._length = self._written = self._synced = self._reserved = 0  # bytes
        self._is_doubtful = False  # an fsync failed: the kernel may have dropped what it failed on
        self._syncing: trio.Event | None = None
        self._rewrite()

    def append(self, record: Record) -> None:
        """Write one record; it survives a crash of the gateway, not one of the machine."""
        frame = _framed(record)
        if os.write(self._descriptor, frame) != len(frame):
            self._is_doubtful = True  # half a record: nothing behind it would be found again
        self.state.apply(record)
        self._length += len(frame)
        self._written += len(frame)
        if self._is_doubtful:
            self._rewrite()
        elif self._length > COMPACT_FROM + 2 * self._live:
            self._compact()
        self._reserve()

    async def synchronize(self) -> None:
        """Return once all that was appended is on disk."""
        wanted = self._written
        while self._synced < wanted or self._is_doubtful:
            if self._syncing is not None:
                await self._syncing.wait()
            elif self._is_doubtful:
                self._rewrite()
            else:
                await self._synchronize_once()

    def close(self) -> None:
        """Close the file; nothing is appended afterwards."""
        os.close(self._descriptor)

    def _keep_aside(self, path: Path) -> None:
        """Keep the log as it is under `path` too: it is needed until it was written anew."""
        with suppress(OSError):  # a file system without links, or without room for one
            path.unlink(missing_ok=True)
            path.hardlink_to(self._path)

    async def _synchronize_once(self) -> None:
        self._syncing, reached = trio.Event(), self._written
        descriptor = os.dup(self._descriptor)  # a rewrite may close ours meanwhile
        try:
            await trio.to_thread.run_sync(os.fsync, descriptor)
            self._synced = max(self._synced, reached)
        except OSError:
            self._is_doubtful = True
            raise
        finally:
            os.close(descriptor)
            self._syncing.set()
            self._syncing = None

    def _compact(self) -> None:
        try:
            self._rewrite()
        except OSError as error:
            self._live = self._length  # as long again until the next try
            log.warning("%s has grown long and cannot be written anew: %s", self._path, error)

    def _reserve(self) -> None:
        if self._length + RESERVE // 2 > self._reserved:
            stop = self._length + RESERVE
            if reserve(self._descriptor, self._length, stop):
                self._reserved = stop

    def _rewrite(self) -> None:
        """Replace the log by one that says the same in fewer records, durably."""
        temporary = self._path.with_suffix(".new")
        data = b"".join(_framed(record) for record in self.state.records())
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            for start in range(0, len(data), MIB):
                piece = data[start : start + MIB]
                if os.write(descriptor, piece) != len(piece):  # the disk is full
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))
            os.fsync(descriptor)
            temporary.replace(self._path)
            synchronize_directory(self._path.parent)
        except OSError:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._is_doubtful = descriptor, False
        self._length = self._live = len(data)
        self._synced, self._reserved = self._written, 0
        self._reserve()


def _framed(record: Record) -> bytes:
    payload = _encoder.encode(record)
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _records(data: bytes) -> Iterator[tuple[int, Record]]:
    """Yield each whole record with the offset behind it, up to the first that is torn."""
    offset = 0
    while offset + _FRAME.size <= len(data):
        length, checksum = _FRAME.unpack_from(data, offset)
        offset += _FRAME.size
        payload = memoryview(data)[offset : offset + length]
        if length > LENGTH_MAX or len(payload) < length or zlib.crc32(payload) != checksum:
            return
        try:
            record = _decoder.decode(payload)
        except msgspec.DecodeError:
            return
        offset += length
        yield offset, record

"""gzip (RFC 1952): restarts every few MiB, inside the deflate stream.

A restart's state is empty at the beginning of a member; else one byte, the number of bits of the
byte at `packed` that still count, and the 32 KiB before it, compressed.
"""

import struct
import zlib
from collections.abc import Iterator

from backgate.fs.formats.compression.codec import CHUNK, Restart
from backgate.fs.formats.compression.inflate import WINDOW, Inflate, InflateError
from backgate.fs.formats.compression.packed import PackedFile
from backgate.gateway.units import KIB, MIB

SPACING = 4 * MIB  # plain bytes between restarts: 15 ms of work, and 0.3 % of the size in windows
RESTARTS = 4096  # before the spacing grows with the archive
HEADER_TEXT_MAX = 64 * KIB  # bytes of a file name or comment in a header

_HEADER = struct.Struct("<2sBBIBB")
_TRAILER = struct.Struct("<II")
_MAGIC, _DEFLATE = b"\x1f\x8b", 8
_HAS_CHECKSUM, _HAS_EXTRA, _HAS_NAME, _HAS_COMMENT, _RESERVED = 2, 4, 8, 16, 0xE0


def unpack(file: PackedFile, state: bytes | None) -> Iterator[Restart | bytes]:
    """See `codec.Unpack`. CRC and length of members read from their start are checked."""
    spacing = _Spacing()
    if state:
        yield from _Member(file, _resumed(file, state), None).unpack(spacing)
    first = not state
    while first or _has_more(file):
        if first or spacing.is_due:
            yield spacing.restart(file.position, b"")
        _skip_header(file)
        yield from _Member(file, Inflate(CHUNK), zlib.crc32(b"")).unpack(spacing)
        first = False


class _Spacing:
    """Says when the next restart is due."""

    def __init__(self) -> None:
        self.plain = self._last = 0

    @property
    def is_due(self) -> bool:
        return self.plain - self._last >= max(SPACING, self.plain // RESTARTS)

    def restart(self, packed: int, state: bytes) -> Restart:
        self._last = self.plain
        return Restart(packed, state)


class _Member:
    """One deflate stream and the trailer behind it."""

    def __init__(self, file: PackedFile, inflate: Inflate, checksum: int | None) -> None:
        """`checksum` is None when the stream is entered in its middle: it cannot be checked."""
        self._file, self._inflate, self._checksum = file, inflate, checksum
        self._size = 0

    def unpack(self, spacing: _Spacing) -> Iterator[Restart | bytes]:
        file, inflate = self._file, self._inflate
        while not inflate.is_ended:
            data, at = file.some()
            if at == len(data):
                raise file.damaged("truncated: it ends in the middle of the compressed data")
            try:
                plain, taken = inflate.inflate(data, at)
            except InflateError as error:
                raise file.damaged(f"gzip: {error}") from error
            file.skip(taken)
            if plain:
                self._count(plain)
                spacing.plain += len(plain)
                yield plain
            if inflate.is_boundary and spacing.is_due:
                yield self._restart(spacing)
        self._check_trailer()

    def _count(self, plain: bytes) -> None:
        if self._checksum is not None:
            self._checksum = zlib.crc32(plain, self._checksum)
            self._size += len(plain)

    def _restart(self, spacing: _Spacing) -> Restart:
        bits = self._inflate.bits
        state = bytes([bits]) + zlib.compress(self._inflate.window(), 1)
        return spacing.restart(self._file.position - bool(bits), state)

    def _check_trailer(self) -> None:
        checksum, size = _TRAILER.unpack(self._file.exactly(_TRAILER.size))
        if self._checksum is not None and (checksum, size) != (
            self._checksum,
            self._size & 0xFFFF_FFFF,
        ):
            raise self._file.damaged("gzip: checksum or length of the data before is wrong")


def _resumed(file: PackedFile, state: bytes) -> Inflate:
    bits = state[0]
    value = file.exactly(1)[0] >> (8 - bits) if bits else 0
    window = zlib.decompressobj().decompress(state[1:], WINDOW)
    return Inflate(CHUNK, window, bits, value)


def _has_more(file: PackedFile) -> bool:
    """True when another member follows; zeros fill up to a block of tape or disk."""
    while True:
        data, at = file.some()
        if at == len(data):
            return False
        if data[at]:
            return True
        rest = data[at:]
        file.skip(len(rest) - len(rest.lstrip(b"\0")))


def _skip_header(file: PackedFile) -> None:
    magic, method, flags, _, _, _ = _HEADER.unpack(file.exactly(_HEADER.size))
    if magic != _MAGIC or method != _DEFLATE or flags & _RESERVED:
        raise file.damaged("gzip: what follows is no gzip member")
    if flags & _HAS_EXTRA:
        file.exactly(int.from_bytes(file.exactly(2), "little"))
    for flag in (_HAS_NAME, _HAS_COMMENT):
        if flags & flag:
            _skip_text(file)
    if flags & _HAS_CHECKSUM:
        file.exactly(2)


def _skip_text(file: PackedFile) -> None:
    for _ in range(HEADER_TEXT_MAX):
        if file.exactly(1) == b"\0":
            return
    raise file.damaged("gzip: a header without an end")

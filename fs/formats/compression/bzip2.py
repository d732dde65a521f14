"""bzip2: every block of up to 900 kB can be decompressed alone.

Blocks begin at any bit, behind the 48 bits of pi; the end of a stream has those of its square root.
A block is shifted to a byte and wrapped as a stream of its own, as bzip2recover does; the library
then checks its CRC, and the CRC over all blocks is checked here. A restart's state is the level,
and the bits where the block begins and ends counted from `packed`.
"""

import bz2
import struct
from collections.abc import Iterator
from itertools import chain

from backgate.fs.formats.compression.codec import CHUNK, Restart
from backgate.fs.formats.compression.packed import PackedFile
from backgate.gateway.errors import Damaged
from backgate.gateway.units import KIB, MIB

BLOCK_MAX = 1_250_000  # bytes; 900,000 that do not compress become somewhat more
MEMORY = 8 * MIB  # bytes: a block packed, shifted, and as libbz2 unfolds it
TRIES = 4  # ends of one block that are tried: the 48 bits may also occur within one by chance

_BLOCK, _END = 0x314159265359, 0x177245385090
_MARK_BITS, _CRC_BITS = 48, 32
_CRC_MASK = 0xFFFF_FFFF
_STATE = struct.Struct("<BBI")
_LEVELS = b"123456789"
_STEP = 256 * KIB  # bytes read at a time while looking for the end of a block
_MIDDLE = 5  # bytes of a mark that are whole wherever in a byte it begins
_MIDDLE_MASK = (1 << 8 * _MIDDLE) - 1
_PATTERNS = [
    (mark, shift, (mark >> shift & _MIDDLE_MASK).to_bytes(_MIDDLE, "big"))
    for mark in (_BLOCK, _END)
    for shift in range(8)
]


def unpack(file: PackedFile, state: bytes | None) -> Iterator[Restart | bytes]:
    """See `codec.Unpack`. Checked are every block's CRC and, in the first pass, every stream's."""
    if state is not None:
        level, start, stop = _STATE.unpack(state)
        bits = _Bits(file)
        bits.require(stop)
        yield from _decompress(file, level, bits.cut(start, stop), stop - start)
        return
    while level := _next_stream(file):
        yield from _stream(file, level)


def _next_stream(file: PackedFile) -> int:
    """Return the level of the next stream, 0 at the end of the file; zeros may fill it up."""
    header = file.read(4)
    while header and not any(header):
        header = file.read(MIB)
    if not header:
        return 0
    if header[:3] != b"BZh" or len(header) != 4 or header[3] not in _LEVELS:
        raise file.damaged("bzip2: what follows is no bzip2 stream")
    return header[3]


def _stream(file: PackedFile, level: int) -> Iterator[Restart | bytes]:
    bits = _Bits(file)
    bits.require(_MARK_BITS)
    start, mark, combined = 0, bits.cut(0, _MARK_BITS), 0
    while mark == _BLOCK:
        stop, mark, pieces, checksum = _block(file, bits, level, start)
        first = start // 8
        state = _STATE.pack(level, start % 8, stop - 8 * first)
        yield Restart(bits.origin + first, state, MEMORY)
        yield from pieces
        combined = (combined << 1 | combined >> 31) & _CRC_MASK ^ checksum
        start = bits.drop(stop)
    end = start + _MARK_BITS + _CRC_BITS
    bits.require(end)
    if mark != _END or bits.cut(end - _CRC_BITS, end) != combined:
        raise file.damaged("bzip2: the checksum over the blocks before is wrong")
    bits.close(end)


def _block(
    file: PackedFile, bits: "_Bits", level: int, start: int
) -> tuple[int, int, Iterator[bytes], int]:
    """Return where the block at `start` ends, the mark there, its plain bytes and its CRC."""
    stop = start
    for _ in range(TRIES):
        stop, mark = bits.next_mark(stop + _MARK_BITS, start)
        block, length = bits.cut(start, stop), stop - start
        pieces = _decompress(file, level, block, length)
        try:
            first = next(pieces, b"")
        except Damaged:
            continue  # perhaps the mark stands in the block by chance
        checksum = block >> (length - _MARK_BITS - _CRC_BITS) & _CRC_MASK
        return stop, mark, chain((first,), pieces), checksum
    raise file.damaged("bzip2: a block does not hold together")


def _decompress(file: PackedFile, level: int, block: int, length: int) -> Iterator[bytes]:
    """Give the plain bytes of one block of `length` bits; nothing before all of it was decoded."""
    if length < _MARK_BITS + _CRC_BITS:
        raise file.damaged("bzip2: a block without content")
    checksum = block >> (length - _MARK_BITS - _CRC_BITS) & _CRC_MASK
    length += _MARK_BITS + _CRC_BITS
    stream = (block << _MARK_BITS | _END) << _CRC_BITS | checksum
    size = -(-length // 8)
    data = b"BZh" + bytes([level]) + (stream << 8 * size - length).to_bytes(size, "big")
    decompressor = bz2.BZ2Decompressor()
    while not decompressor.eof:
        try:
            plain = decompressor.decompress(data, CHUNK)
        except OSError as error:
            raise file.damaged(f"bzip2: {error}") from error
        data = b""
        if not plain and not decompressor.eof:
            raise file.damaged("bzip2: a block without an end")
        yield plain


class _Bits:
    """The file's bits, counted from the byte `origin`."""

    def __init__(self, file: PackedFile) -> None:
        self._file, self._data = file, b""
        self.origin = file.position

    def require(self, bits: int) -> None:
        """Read on until there are that many."""
        missing = -(-bits // 8) - len(self._data)
        if missing > 0:
            self._data += self._file.exactly(missing)

    def cut(self, start: int, stop: int) -> int:
        """Return the bits `[start, stop)` as a number."""
        last = -(-stop // 8)
        number = int.from_bytes(self._data[start // 8 : last], "big")
        return number >> 8 * last - stop & (1 << stop - start) - 1

    def drop(self, bits: int) -> int:
        """Forget all whole bytes before `bits`, and return what it is counted from now."""
        self._data = self._data[bits // 8 :]
        self.origin += bits // 8
        return bits % 8

    def close(self, bits: int) -> None:
        """Give everything behind `bits`, from the next whole byte on, back to the file."""
        self._file.give_back(self._data[-(-bits // 8) :])
        self._data = b""

    def next_mark(self, begin: int, block_start: int) -> tuple[int, int]:
        """Return where the next mark at or behind `begin` lies, and which it is."""
        searched = begin // 8
        while True:
            found = self._marks(searched, begin)
            if found:
                return min(found)
            searched = max(searched, len(self._data) - _MIDDLE - 2)
            if 8 * len(self._data) - block_start > 8 * BLOCK_MAX:
                raise self._file.damaged("bzip2: a block without an end")
            more = self._file.read(_STEP)
            if not more:
                raise self._file.damaged("truncated: it ends in the middle of the compressed data")
            self._data += more

    def _marks(self, searched: int, begin: int) -> list[tuple[int, int]]:
        """Return the first mark of each kind and shift that lies whole in the data."""
        found = []
        for mark, shift, middle in _PATTERNS:
            at = self._data.find(middle, searched)
            while at >= 0:
                start = 8 * (at - 1) + shift
                stop = start + _MARK_BITS
                if begin <= start and stop <= 8 * len(self._data) and self.cut(start, stop) == mark:
                    found.append((start, mark))
                    break
                at = self._data.find(middle, at + 1)
        return found

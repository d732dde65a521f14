"""xz: restarts at blocks, as the index at the end of each stream lists them.

`xz -T`, pixz and others write blocks of some 10 MiB; a single-threaded xz before 5.6 writes one for
all. A restart's state is the two bytes of stream flags, how many bytes of blocks follow it, and how
many bytes a decoder may take. The .xz File Format, version 1.2.0.
"""

import lzma
import struct
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import trio

from backgate.fs.formats.compression.codec import CHUNK, UNIT_MIN, Restart
from backgate.fs.formats.compression.packed import PackedFile
from backgate.gateway.units import KIB, MIB

MEMORY_MAX = 96 * MIB  # bytes for a decoder; `xz -9` needs 65 MiB
INDEX_MAX = 16 * MIB  # bytes of one stream's index: millions of blocks
STREAMS_MAX = 100_000  # `cat` of that many files
BLOCKS_MAX = 2_000_000  # in all streams together: 32 MB
DECODER = 2 * MIB  # bytes that a decoder takes besides its dictionary, at most

_HEADER_MAGIC, _FOOTER_MAGIC = b"\xfd7zXZ\0", b"YZ"
_STATE = struct.Struct("<2sQI")
_EDGE = 12  # bytes of a stream's header, and of its footer
_BLOCK_HEADER = 64  # bytes of a block's header that are looked at
_FILTERS, _HAS_PACKED_SIZE, _HAS_PLAIN_SIZE = 0x03, 0x40, 0x80
_LZMA2, _DICTIONARY_BITS_MAX = 0x21, 40
_READ = 64 * KIB  # compressed bytes given to the library at a time


def unpack(file: PackedFile, state: bytes | None) -> Iterator[Restart | bytes]:
    """See `codec.Unpack`. Checked are every block's check and, in the first pass, the index."""
    if state is not None:
        flags, length, memory = _STATE.unpack(state)
        header = _HEADER_MAGIC + flags + zlib.crc32(flags).to_bytes(4, "little")
        yield from _decompress(file, header, file.position + length, memory)
        return
    for stream in _streams(file):
        yield from _first_pass(file, stream)


@dataclass(frozen=True, slots=True)
class _Stream:
    """Where one stream lies, and its blocks."""

    start: int
    stop: int
    flags: bytes
    packed: "array[int]"  # where each block begins, counted from `start`
    plain: "array[int]"  # what each block becomes, in bytes
    blocks: int  # where the last block ends, counted from `start`


def _first_pass(file: PackedFile, stream: _Stream) -> Iterator[Restart | bytes]:
    file.pass_over(stream.start - file.position)  # padding
    memory = min(MEMORY_MAX, _dictionary(file, stream) + DECODER)
    plain = _decompress(file, b"", stream.stop, memory)
    since = UNIT_MIN
    left = b""
    for at, length in zip(stream.packed, stream.plain, strict=True):
        if since >= UNIT_MIN:
            state = _STATE.pack(stream.flags, stream.blocks - at, memory)
            yield Restart(stream.start + at, state, memory)
            since = 0
        since += length
        while length:
            left = left or next(plain, b"")
            if not left:
                raise file.damaged("xz: less data than the index says")
            yield left[:length]
            length, left = length - len(left[:length]), left[length:]
    if left or next(plain, b""):
        raise file.damaged("xz: more data than the index says")


def _decompress(file: PackedFile, data: bytes, stop: int, memory: int) -> Iterator[bytes]:
    """Give what becomes of `data` and of the file's bytes up to `stop`.

    Where a block was entered, that is the end of the blocks: the index behind them tells of more.
    """
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=memory)
    while not decompressor.eof:
        if not data and decompressor.needs_input:
            data = file.read(min(_READ, stop - file.position))
            if not data:
                raise file.damaged("xz: a stream ends in the middle")
        try:
            plain = decompressor.decompress(data, CHUNK)
        except lzma.LZMAError as error:
            raise file.damaged(f"xz: {error}") from error
        data = b""
        if plain:
            yield plain
    if decompressor.unused_data:
        raise file.damaged("xz: a stream that ends before its index")


def _dictionary(file: PackedFile, stream: _Stream) -> int:
    """Return the bytes of LZMA2's dictionary in the first block; 3.1 and 5.3.1.

    Others are made alike: one that needs more fails.
    """
    if not stream.plain:
        return 0
    header = _part(file, stream.start + _EDGE, stream.start + _EDGE + _BLOCK_HEADER)
    flags, at = header[1], 2
    for has_size in (_HAS_PACKED_SIZE, _HAS_PLAIN_SIZE):
        if flags & has_size:
            _, at = _number(file, header, at)
    for _ in range((flags & _FILTERS) + 1):
        kind, at = _number(file, header, at)
        length, at = _number(file, header, at)
        if kind == _LZMA2 and at < len(header) and header[at] <= _DICTIONARY_BITS_MAX:
            return int((2 | header[at] & 1) << header[at] // 2 + 11)
        at += length
    return MEMORY_MAX


def _streams(file: PackedFile) -> list[_Stream]:
    """Return the streams of the whole file, read from the footers backwards."""
    found: list[_Stream] = []
    blocks = 0
    stop = file.source.size
    while stop:
        if len(found) >= STREAMS_MAX:
            raise file.damaged(f"xz: more than {STREAMS_MAX} streams")
        footer_at = _footer_before(file, stop)
        found.append(_stream_before(file, footer_at))
        blocks += len(found[-1].plain)
        if blocks > BLOCKS_MAX:
            raise file.damaged(f"xz: more than {BLOCKS_MAX} blocks")
        stop = found[-1].start
    return found[::-1]


def _footer_before(file: PackedFile, stop: int) -> int:
    """Return where the footer before `stop` lies; zeros, four at a time, may follow it."""
    while True:
        start = max(0, stop - _READ)
        data = _part(file, start, stop)
        length = len(data.rstrip(b"\0"))
        if length:
            break
        stop = start
    end = start + -(-length // 4) * 4
    if end - _EDGE < 0 or _part(file, end - 2, end) != _FOOTER_MAGIC:
        raise file.damaged("truncated: no end of an xz stream")
    return end - _EDGE


def _stream_before(file: PackedFile, footer_at: int) -> _Stream:
    footer = _part(file, footer_at, footer_at + _EDGE)
    size = (int.from_bytes(footer[4:8], "little") + 1) * 4
    if zlib.crc32(footer[4:10]).to_bytes(4, "little") != footer[:4] or size > INDEX_MAX:
        raise file.damaged("xz: the end of a stream is damaged, or its index is too large")
    packed, plain = _index(file, _part(file, max(0, footer_at - size), footer_at))
    start = footer_at - size - packed[-1]
    if start < 0 or _part(file, start, start + len(_HEADER_MAGIC)) != _HEADER_MAGIC:
        raise file.damaged("xz: a stream does not begin where its index says")
    return _Stream(start, footer_at + _EDGE, footer[8:10], packed[:-1], plain, packed[-1])


def _index(file: PackedFile, data: bytes) -> tuple["array[int]", "array[int]"]:
    """Return where the blocks begin in the stream (and where the last ends), and their sizes."""
    if data[:1] != b"\0" or zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
        raise file.damaged("xz: the index of a stream is damaged")
    count, at = _number(file, data, 1)
    if count > BLOCKS_MAX:
        raise file.damaged(f"xz: more than {BLOCKS_MAX} blocks")
    packed, plain = array("Q", [_EDGE]), array("Q")
    for _ in range(count):
        unpadded, at = _number(file, data, at)
        size, at = _number(file, data, at)
        packed.append(min(packed[-1] + -(-unpadded // 4) * 4, 2**63))
        plain.append(size)
    if any(one >= two for one, two in pairwise(packed)) or packed[-1] >= 2**63:
        raise file.damaged("xz: the index of a stream is damaged")
    return packed, plain


def _number(file: PackedFile, data: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length number at `at` and where it ends; 1.2 of the specification."""
    number = 0
    for shift in range(0, 63, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return number, at
    raise file.damaged("xz: the index of a stream is damaged")


def _part(file: PackedFile, start: int, stop: int) -> bytes:
    return bytes(trio.from_thread.run(file.source.read_at, start, stop - start))

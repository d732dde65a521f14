"""Zstandard (RFC 8878): restarts at frames.

Frames are cut into their blocks here, because a block says how much it can become at most (128 KiB)
and the library does not take a limit. Skippable frames, such as the table of the seekable format,
are passed. A restart's state is empty.
"""

from collections.abc import Iterator

import zstandard

from backgate.fs.formats.compression.codec import UNIT_MIN, Restart
from backgate.fs.formats.compression.packed import PackedFile
from backgate.gateway.units import KIB, MIB

WINDOW_MAX = 128 * MIB  # bytes; what `zstd --ultra -22` needs, and all that `zstd -d` takes unasked
BLOCKS = 8  # given to the library together: 1 MiB of plain bytes at most
BLOCK_MAX = 128 * KIB  # bytes, packed or plain

_MAGIC, _SKIPPABLE, _SKIPPABLE_MASK = 0xFD2FB528, 0x184D2A50, 0xFFFF_FFF0
_RAW, _RLE, _RESERVED = 0, 1, 3  # block types
_SINGLE_SEGMENT, _HAS_CHECKSUM, _RESERVED_BIT = 0x20, 0x04, 0x08
_CHECKSUM = 4  # bytes
_DICTIONARY_BYTES = (0, 1, 2, 4)
_SIZE_BYTES = (0, 2, 4, 8)


def unpack(file: PackedFile, state: bytes | None) -> Iterator[Restart | bytes]:
    """See `codec.Unpack`. The checksum of a frame is checked where it has one."""
    since = UNIT_MIN  # plain bytes since the last restart
    announced = 0  # bytes of memory that the last restart spoke of
    while True:
        start = file.position
        magic = file.read(4)
        if not magic:
            return
        number = int.from_bytes(magic, "little")
        if len(magic) == 4 and number & _SKIPPABLE_MASK == _SKIPPABLE:
            file.pass_over(int.from_bytes(file.exactly(4), "little"))
            continue
        if number != _MAGIC:
            _require_zeros(file, magic)
            return
        header = _header(file)
        memory = zstandard.get_frame_parameters(magic + header).window_size + MIB
        if since >= UNIT_MIN or memory > announced:
            yield Restart(start, b"", min(memory, WINDOW_MAX))
            since, announced = 0, memory
        for plain in _frame(file, magic + header, bool(header[0] & _HAS_CHECKSUM)):
            since += len(plain)
            yield plain


def _header(file: PackedFile) -> bytes:
    """Return the frame header behind the magic number; RFC 8878, 3.1.1.1."""
    descriptor = file.exactly(1)
    flags = descriptor[0]
    if flags & _RESERVED_BIT:
        raise file.damaged("zstd: a frame of an unknown kind")
    is_single = bool(flags & _SINGLE_SEGMENT)
    length = _DICTIONARY_BYTES[flags & 3] + (0 if is_single else 1)
    length += _SIZE_BYTES[flags >> 6] or is_single
    return descriptor + file.exactly(length)


def _frame(file: PackedFile, header: bytes, has_checksum: bool) -> Iterator[bytes]:
    frame = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX).decompressobj()
    _decompress(file, frame, header)
    is_last = False
    while not is_last:
        blocks: list[bytes] = []
        while len(blocks) < BLOCKS and not is_last:
            block, is_last = _block(file)
            blocks.append(block)
        if is_last and has_checksum:
            blocks.append(file.exactly(_CHECKSUM))
        plain = _decompress(file, frame, b"".join(blocks))
        if plain:
            yield plain
    if not frame.eof:
        raise file.damaged("zstd: a frame does not end with its last block")


def _block(file: PackedFile) -> tuple[bytes, bool]:
    head = file.exactly(3)
    value = int.from_bytes(head, "little")
    kind, size = value >> 1 & 3, value >> 3
    if kind == _RESERVED or size > BLOCK_MAX:
        raise file.damaged("zstd: a block of an unknown kind")
    return head + file.exactly(1 if kind == _RLE else size), bool(value & 1)


def _decompress(file: PackedFile, frame: "zstandard.ZstdDecompressionObj", data: bytes) -> bytes:
    try:
        return frame.decompress(data)
    except zstandard.ZstdError as error:
        raise file.damaged(f"zstd: {error}") from error


def _require_zeros(file: PackedFile, magic: bytes) -> None:
    data = magic
    while data:
        if any(data):
            raise file.damaged("zstd: what follows is no zstd frame")
        data = file.read(MIB)

"""Decompress zstd frames whose plain length is known or bounded, in any thread."""

import threading

import zstandard

from backgate.fs.formats.restic.crypto import Unsound
from backgate.gateway.source import Data
from backgate.gateway.units import MIB

STEP = MIB  # bytes of plaintext taken at a time where the length is not known

_local = threading.local()  # a decompressor shared by threads garbles data


def decompress(frame: Data, length: int) -> bytes:
    """Return the `length` bytes that `frame` holds; `Unsound` when it is not exactly that."""
    try:
        announced = zstandard.frame_content_size(frame)
        if announced not in (-1, length):
            raise Unsound(f"a frame of {announced} bytes where the index says {length}")
        plain: bytes = _decompressor().decompress(frame, max_output_size=length)
    except zstandard.ZstdError as error:
        raise Unsound(f"zstd: {error}") from None
    if len(plain) != length:
        raise Unsound(f"decompresses to {len(plain)} bytes where the index says {length}")
    return plain


def decompress_unknown(frame: Data, limit: int) -> bytes:
    """Return what `frame` holds; `Unsound` when that is more than `limit` bytes."""
    pieces: list[bytes] = []
    length = 0
    try:
        with _decompressor().stream_reader(frame) as reader:
            while piece := reader.read(STEP):
                pieces.append(piece)
                length += len(piece)
                if length > limit:
                    raise Unsound(f"decompresses to more than {limit} bytes")
    except zstandard.ZstdError as error:
        raise Unsound(f"zstd: {error}") from None
    return b"".join(pieces)


def _decompressor() -> zstandard.ZstdDecompressor:
    decompressor: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor()
    return decompressor

"""How the chunks of a VHD directory are compressed: each is one whole brotli or gzip stream.

What a chunk may become is known before: decompression stops there, whatever the bytes say.
"""

import zlib
from collections.abc import Callable

import brotli

from backgate.gateway.source import Data

Filter = Callable[[Data, int], Data]  # stored bytes, most plain bytes -> plain bytes

_GZIP = 31  # window bits of zlib that say: one gzip member


class BadChunk(ValueError):
    """Bytes that their filter does not understand; the caller knows where they lie."""


def filter_named(name: str) -> Filter:
    """Return what undoes the filter `name` of `chunk-filters.json`; "" is none."""
    try:
        return {"": _as_is, "none": _as_is, "brotli": _brotli, "gzip": _gzip}[name]
    except KeyError:
        raise BadChunk(f"a chunk filter that is not known: {name!a:.40}") from None


def _as_is(stored: Data, limit: int) -> Data:
    if len(stored) > limit:
        raise BadChunk(f"{len(stored)} bytes, where at most {limit} belong")
    return stored


def _brotli(stored: Data, limit: int) -> Data:
    decompressor = brotli.Decompressor()
    try:
        plain: bytes = decompressor.process(stored, output_buffer_limit=limit + 1)
        while len(plain) <= limit and not decompressor.is_finished():
            more = decompressor.process(b"", output_buffer_limit=limit + 1 - len(plain))
            if not more:
                break
            plain += more
    except brotli.error:
        raise BadChunk("brotli: the stream does not hold together") from None
    if len(plain) > limit:
        raise BadChunk(f"brotli: more than {limit} bytes when unpacked")
    if not decompressor.is_finished():
        raise BadChunk("brotli: the stream ends too early")
    return plain


def _gzip(stored: Data, limit: int) -> Data:
    decompressor = zlib.decompressobj(_GZIP)
    try:
        plain = decompressor.decompress(stored, limit + 1)
    except zlib.error as error:
        raise BadChunk(f"gzip: {error}") from None
    if len(plain) > limit:
        raise BadChunk(f"gzip: more than {limit} bytes when unpacked")
    if not decompressor.eof or decompressor.unused_data:
        raise BadChunk("gzip: the stream does not end where it should")
    return plain

"""What zlib can and Python's `zlib` cannot: stop at a block, and start at a bit.

A deflate stream can be entered at a block when one knows the bit and the 32 KiB before it (zlib's
examples/zran.c). Python's `zlib` neither stops at blocks nor starts within a byte, so the same
library that it is linked with is called directly. Measured against indexed_gzip 1.10.3, which wraps
zran: that one decompresses the first pass several times over, keeps all windows in memory, and
takes a truncated file for a whole one.
"""

import ctypes
import zlib
from functools import cache

from backgate.gateway.errors import UsageError

WINDOW = 32768  # bytes that deflate may refer back to

_RAW = -15  # window bits without a wrapper
_Z_BLOCK = 5
_OK, _STREAM_END, _BUFFER_ERROR = 0, 1, -5
_BITS, _IS_LAST, _IS_BOUNDARY = 7, 64, 128  # in data_type, see zlib.h at inflate()


class _Stream(ctypes.Structure):
    _fields_ = (
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint),
        ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint),
        ("total_out", ctypes.c_ulong),
        ("msg", ctypes.c_char_p),
        ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_ulong),
        ("reserved", ctypes.c_ulong),
    )


class InflateError(ValueError):
    """The bytes are no deflate stream."""


class Inflate:
    """Decompresses one raw deflate stream, stopping at its blocks; for one thread at a time."""

    def __init__(self, chunk: int, window: bytes = b"", bits: int = 0, value: int = 0) -> None:
        """Give up to `chunk` bytes at a time; start after `window` with the `bits` of `value`."""
        self._library, self._stream = _library(), _Stream()
        self._out = ctypes.create_string_buffer(chunk)
        self.is_ended = self.is_boundary = False
        self.bits = 0  # of the last byte taken, that belong to the next block
        size = ctypes.sizeof(_Stream)
        self._check(self._library.inflateInit2_(self._self, _RAW, zlib.ZLIB_VERSION.encode(), size))
        if bits:
            self._check(self._library.inflatePrime(self._self, bits, value))
        if window:
            self._check(self._library.inflateSetDictionary(self._self, window, len(window)))

    def __del__(self) -> None:
        if self._stream.state:
            self._library.inflateEnd(self._self)

    def inflate(self, data: bytes, at: int) -> tuple[bytes, int]:
        """Take bytes of `data` from `at` on; return what came of them and how many were taken.

        It stops at a block (`is_boundary`), at the end (`is_ended`), or when out of room or bytes.
        """
        stream = self._stream
        base = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
        stream.next_in, stream.avail_in = base + at, len(data) - at
        stream.next_out, stream.avail_out = ctypes.addressof(self._out), len(self._out)
        code = self._library.inflate(self._self, _Z_BLOCK)
        if code not in (_OK, _STREAM_END, _BUFFER_ERROR):
            raise InflateError((stream.msg or b"not deflate data").decode("ascii", "replace"))
        self.is_ended = code == _STREAM_END
        self.is_boundary = stream.data_type & (_IS_BOUNDARY | _IS_LAST) == _IS_BOUNDARY
        self.bits = stream.data_type & _BITS
        made = len(self._out) - stream.avail_out
        return ctypes.string_at(self._out, made), len(data) - at - stream.avail_in

    def window(self) -> bytes:
        """Return the last bytes that came out, as far as the stream may refer to them."""
        buffer = ctypes.create_string_buffer(WINDOW)
        length = ctypes.c_uint(WINDOW)
        self._check(self._library.inflateGetDictionary(self._self, buffer, ctypes.byref(length)))
        return buffer.raw[: length.value]

    @property
    def _self(self) -> object:
        return ctypes.byref(self._stream)

    def _check(self, code: int) -> None:
        if code != _OK:
            raise InflateError(f"zlib answers {code}")


@cache
def _library() -> ctypes.CDLL:
    """Return the zlib that this Python itself uses, else the system's."""
    for name in (None, getattr(zlib, "__file__", None), "libz.so.1"):
        try:
            library = ctypes.CDLL(name)
            library.inflateGetDictionary  # noqa: B018
        except (OSError, AttributeError):
            continue
        return library
    raise UsageError("gzip archives need the library libz.so.1, which cannot be loaded")

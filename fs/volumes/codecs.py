"""What the fs-explorer library does slowly or not at all, from packages that are there anyway.

It takes zstd from the standard library of Python 3.14; before that it would look for a
shared library, by starting other programs, which a worker may not. So it finds ours by that name.
"""

import sys
from types import ModuleType
from typing import Any

import zstandard

WINDOW_MAX = 128 << 20  # bytes; what `zstd -d` takes without being told to


def provide_zstd() -> None:
    """Let `compression.zstd` be found, where it is not there."""
    if sys.version_info >= (3, 14) or "compression.zstd" in sys.modules:
        return
    module = ModuleType("compression.zstd")
    module.__dict__["ZstdDecompressor"] = _decompressor
    module.__dict__["ZstdError"] = zstandard.ZstdError
    package = ModuleType("compression")
    package.__path__ = []
    sys.modules |= {"compression": package, "compression.zstd": module}


def _decompressor() -> Any:
    """Return an object with `decompress`, `eof` and `unused_data`, for one frame."""
    return zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX).decompressobj()

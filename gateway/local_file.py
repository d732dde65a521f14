"""A file on the gateway's own disk that holds bytes of a file of the spool, and holes elsewhere.

It is made when it is first needed, and its descriptor is open only while somebody may need it.
"""

import ctypes
import mmap
import os
from pathlib import Path

import trio

from backgate.gateway.source import Data
from backgate.gateway.units import MIB

ZEROS = 8 * MIB  # bytes written at a time where the file system has no holes
_KEEP_SIZE = 0x01  # FALLOC_FL_KEEP_SIZE, fallocate(2)
_PUNCH_HOLE = 0x02 | _KEEP_SIZE  # FALLOC_FL_PUNCH_HOLE
_libc = ctypes.CDLL(None, use_errno=True)


class LocalFile:
    """The file `path`, which need not exist. All methods raise `OSError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    @property
    def exists(self) -> bool:
        """True once it was made and not deleted."""
        return self._descriptor >= 0 or self.path.exists()

    def write(self, offset: int, data: Data) -> int:
        """Put `data` at `offset`, and return how many bytes of it were written."""
        return os.pwrite(self._open(), data, offset)

    def read(self, start: int, stop: int) -> bytes:
        """Return `[start, stop)`; behind its end there are zeros."""
        data = os.pread(self._open(), stop - start, start)
        return data if len(data) == stop - start else data.ljust(stop - start, b"\0")

    def mapped(self, start: int, stop: int) -> memoryview:
        """Return `[start, stop)` mapped into memory; it is made as long, with a hole."""
        descriptor, access = self._open(), mmap.ACCESS_READ
        if os.fstat(descriptor).st_size < stop:
            os.ftruncate(descriptor, stop)
        return memoryview(mmap.mmap(descriptor, stop - start, access=access, offset=start))

    def truncate(self, size: int) -> None:
        """Let it hold no more than `size` bytes, if there is such a file."""
        if self.exists:
            os.ftruncate(self._open(), size)

    def punch(self, start: int, stop: int) -> None:
        """Make it zeros that take no room; only zeros where the file system has no holes."""
        if not self.exists:
            return
        descriptor = self._open()
        offset, length = ctypes.c_int64(start), ctypes.c_int64(stop - start)
        if _libc.fallocate(descriptor, _PUNCH_HOLE, offset, length):
            for at in range(start, stop, ZEROS):
                os.pwrite(descriptor, bytes(min(ZEROS, stop - at)), at)

    async def synchronize(self, *, with_name: bool) -> None:
        """fsync it, and its directory if its name is to survive a loss of power, too."""
        if not self.exists:
            return
        descriptor = os.dup(self._open())  # ours may be closed meanwhile

        def run() -> None:
            os.fsync(descriptor)
            if with_name:
                synchronize_directory(self.path.parent)

        try:
            await trio.to_thread.run_sync(run)
        finally:
            os.close(descriptor)

    def empty(self) -> None:
        """Give all its room back."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
        else:
            self.remove()

    def remove(self) -> None:
        """Delete it; who still reads it does so until it is closed."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the descriptor until it is needed again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> int:
        if self._descriptor < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o600)
        return self._descriptor


def reserve(descriptor: int, start: int, stop: int) -> bool:
    """Have the disk keep room for `[start, stop)` of a file; False where it does not."""
    length = ctypes.c_int64(stop - start)
    return bool(_libc.fallocate(descriptor, _KEEP_SIZE, ctypes.c_int64(start), length) == 0)


def synchronize_directory(directory: Path) -> None:
    """Make the names in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The disk under the index: what SQLite's errors say of it, room in reserve, and where else to go.

Own writes must never be lost to a full disk, for the store has taken them already. So some room is
kept back for them; when that is used up, an index that is only a cache gives way to an empty one.
"""

import enum
import os
import sqlite3
import tempfile
from contextlib import suppress
from pathlib import Path

RESERVE = "index.reserve"  # a file beside the index
RESERVED = 8 * 1024 * 1024  # bytes; some thousand own writes
MEMORY = Path("/dev/shm")  # a folder that no full disk concerns


class Fault(enum.Enum):
    """What an error of SQLite means."""

    BUG = enum.auto()  # of ours
    BUSY = enum.auto()  # another process keeps the index locked
    DISK = enum.auto()  # full, read-only, failing or gone; the index may be as good as ever
    DAMAGE = enum.auto()  # what is in the file does not hold together


_OF_THE_DISK = (
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_READONLY",
    "SQLITE_CANTOPEN",
    "SQLITE_PERM",
    "SQLITE_NOMEM",
    "SQLITE_PROTOCOL",
)


def fault_of(error: sqlite3.DatabaseError) -> Fault:
    """Return what `error` means for the index."""
    if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
        return Fault.BUG
    name = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Fault.BUSY
    return Fault.DISK if name.startswith(_OF_THE_DISK) else Fault.DAMAGE


class Reserve:
    """Room on the disk of `directory` that is let go of when it is needed."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / RESERVE

    @property
    def is_held(self) -> bool:
        """True when there is room to let go of."""
        with suppress(OSError):
            return self._path.stat().st_size >= RESERVED
        return False

    @property
    def has_room(self) -> bool:
        """True when the disk has as much room again."""
        with suppress(OSError):
            room = os.statvfs(self._path.parent)
            return room.f_bavail * room.f_frsize >= RESERVED
        return False

    def hold(self) -> bool:
        """Take the room, if there is any; False when the disk cannot give it."""
        if self.is_held:
            return True
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVED)
            finally:
                os.close(descriptor)
        except OSError:
            self.release()
            return False
        return True

    def release(self) -> bool:
        """Give the room back to the disk; False when there was none to give."""
        was_held = self.is_held
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return False
        return was_held


def refuge() -> Path:
    """Return a new folder, in memory where there is one, for an index whose disk is of no use.

    Raises `OSError`.
    """
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK):
        return Path(tempfile.mkdtemp(prefix="backgate-index-", dir=MEMORY))
    return Path(tempfile.mkdtemp(prefix="backgate-index-"))

"""Mode, owner and times of a file, and how they lie in an object's user metadata."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What stat(2) tells of a file beyond its size; kept with the object when it is published."""

    mode: int  # type and permission bits, as st_mode
    uid: int
    gid: int
    mtime_ns: int  # nanoseconds since 1970
    atime_ns: int | None = None  # None: as mtime_ns
    ctime_ns: int | None = None  # None: as mtime_ns

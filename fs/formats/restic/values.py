"""What restic, a Go program, writes for names, modes and times, and what stat(2) calls them."""

import re
import stat
from functools import lru_cache

from backgate.fs.formats.restic.crypto import Unsound
from backgate.gateway.units import SECOND_NS

NAME_MAX = 1024  # bytes: FUSE_NAME_MAX; one longer name would fail the whole directory
DAY = 86_400  # seconds
FRACTION_DIGITS = 9  # of a second: nanoseconds

# Go's os.FileMode; permission bits are those of Unix.
_SPECIAL_BITS = {1 << 23: stat.S_ISUID, 1 << 22: stat.S_ISGID, 1 << 20: stat.S_ISVTX}
_TYPES = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "dev": stat.S_IFBLK,
    "chardev": stat.S_IFCHR,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
}
_ESCAPE = re.compile(
    rb"\\(?:x([0-9a-fA-F]{2})|([0-3][0-7]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.?))", re.DOTALL
)
_SIMPLE = {
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
    b"\\": b"\\",
    b'"': b'"',
    b"'": b"'",
}
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))",
    re.ASCII,
)


def name_from_go(quoted: str) -> bytes:
    """Return the bytes of a name that was quoted as by Go's `strconv.Quote`."""
    try:
        name = quoted.encode()
        return _ESCAPE.sub(_unescaped, name) if b"\\" in name else name
    except (UnicodeEncodeError, ValueError, OverflowError):
        raise Unsound(f"a name that is not quoted as Go does: {quoted!a:.80}") from None


def checked_name(name: bytes) -> bytes:
    """Return `name` if it can safely stand in a directory."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise Unsound(f"a dangerous name: {name!r:.80}")
    if len(name) > NAME_MAX:
        raise Unsound(f"a name of {len(name)} bytes")
    return name


def mode_from_go(kind: str, go_mode: int) -> int:
    """Return st_mode; the type comes from the node's `type`, a strange one is a regular file."""
    mode = _TYPES.get(kind, stat.S_IFREG) | go_mode & 0o777
    for go_bit, bit in _SPECIAL_BITS.items():
        if go_mode & go_bit:
            mode |= bit
    return mode


@lru_cache(maxsize=4096)
def time_ns_from_go(text: str) -> int:
    """Return nanoseconds since 1970 of an RFC 3339 time; years 0 to 9999, any offset."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise Unsound(f"not a time: {text!a:.40}")
    year, month, day, hour, minute, second = map(int, match.group(1, 2, 3, 4, 5, 6))
    fraction, sign, hours, minutes = match.group(7, 8, 9, 10)
    seconds = _days(year, month, day) * DAY + hour * 3600 + minute * 60 + second
    if sign:
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds -= offset if sign == "+" else -offset
    nanoseconds = int((fraction or "0")[:FRACTION_DIGITS].ljust(FRACTION_DIGITS, "0"))
    return seconds * SECOND_NS + nanoseconds


def _unescaped(match: re.Match[bytes]) -> bytes:
    byte, octal, short, long, simple = match.groups()
    if byte is not None:
        return bytes([int(byte, 16)])
    if octal is not None:
        return bytes([int(octal, 8)])
    if simple is not None:
        if simple not in _SIMPLE:
            raise ValueError(simple)
        return _SIMPLE[simple]
    return chr(int(short or long, 16)).encode()


@lru_cache(maxsize=4096)
def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01, also for the year 0, which `datetime` lacks."""
    if not (1 <= month <= 12 and 1 <= day <= 31):
        raise Unsound(f"not a date: {year}-{month}-{day}")
    # Years begin in March, so that a leap day is a year's last; 400 years have 146,097 days.
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146_097 + day_of_era - 719_468

"""Mode, owner and times of a file, and how they lie in an object's user metadata.

The names and forms are those of s3fs, which rclone reads too. `mode`, `uid` and `gid` are decimal,
`mode` with its type bits (s3fs `src/metaheader.cpp`: get_mode, get_uid). Times are seconds with
nine digits of fraction: s3fs takes the digits behind the point as nanoseconds (cvt_string_to_time),
and rclone's S3 backend reads `mtime` as "floating point since the epoch, accurate to 1 ns"
(rclone.org/s3, Modification times). rclone's `--metadata` writes `mode` in octal; no octal mode is
a valid decimal one, so both are read. A symlink is an object that holds the target, with the
symlink's type in `mode`; a fifo, socket or device an empty one with its type. `rdev` is the number
of a device, decimal, which s3fs does not keep. `xattr` holds extended attributes (`xattrs.py`).

Whoever may write to the bucket chooses these values, so what makes no sense counts as not given.
"""

import os
import re
import stat
from collections.abc import Mapping

from msgspec import Struct

from backgate.gateway.provider import ObjectInfo
from backgate.gateway.units import SECOND_NS
from backgate.gateway.xattrs import METADATA as XATTR
from backgate.gateway.xattrs import TEXT_MAX as XATTR_MAX

SYMLINK_MAX = 4095  # bytes of target; PATH_MAX less its final zero
DIRECTORY_MODE = stat.S_IFDIR | 0o755
FILE_MODE = stat.S_IFREG | 0o644

_NAMES = ("mode", "uid", "gid", "mtime")  # one of these tells that there is something to read
_OURS = {*_NAMES, "atime", "ctime", "rdev", XATTR}
_PERMISSIONS = 0o7777
_ID_MAX = 2**32 - 2  # 2**32 - 1 means "leave it" to chown(2)
_TIME_MAX = 2**63 - 1  # nanoseconds, to either side of 1970
_DIGITS = re.compile(r"[0-9]{1,12}")
_TIME = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,18}))?")
_SPECIAL = {stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK}
_TYPES = {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, *_SPECIAL}
_RDEV_MAX = 2**32 - 1


class Attributes(Struct, frozen=True, kw_only=True):
    """What stat(2) tells of a file beyond its size; kept with the object when it is published."""

    mode: int  # type and permission bits, as st_mode
    uid: int
    gid: int
    mtime_ns: int  # nanoseconds since 1970
    atime_ns: int | None = None  # None: as mtime_ns
    ctime_ns: int | None = None  # None: as mtime_ns
    rdev: int = 0  # of a device, as st_rdev
    xattrs: str = ""  # as they lie in the object's metadata

    @property
    def is_special(self) -> bool:
        """True for a fifo, a socket or a device."""
        return stat.S_IFMT(self.mode) in _SPECIAL


def metadata_from_attributes(attributes: Attributes) -> dict[str, str]:
    """Return the user metadata that says `attributes`."""
    metadata = {
        "mode": str(attributes.mode),
        "uid": str(attributes.uid),
        "gid": str(attributes.gid),
        "mtime": _text_from_time(attributes.mtime_ns),
    }
    if attributes.atime_ns is not None:
        metadata["atime"] = _text_from_time(attributes.atime_ns)
    if attributes.ctime_ns is not None:
        metadata["ctime"] = _text_from_time(attributes.ctime_ns)
    if attributes.rdev:
        metadata["rdev"] = str(attributes.rdev)
    if attributes.xattrs:
        metadata[XATTR] = attributes.xattrs
    return metadata


def metadata_with(metadata: Mapping[str, str], attributes: Attributes) -> dict[str, str]:
    """Return `metadata` of an object with `attributes` in place of those that it tells."""
    others = {name: text for name, text in metadata.items() if name not in _OURS}
    return others | metadata_from_attributes(attributes)


def attributes_from_metadata(
    metadata: Mapping[str, str] | None, info: ObjectInfo
) -> Attributes | None:
    """Return what `metadata` says of the object `info`; None when it says nothing.

    What is missing or senseless is filled in as `default_attributes` has it.
    """
    if metadata is None or not any(name in metadata for name in _NAMES):
        return None
    default = default_attributes(info)
    mtime_ns = _time_from_text(metadata.get("mtime", ""))
    xattrs = metadata.get(XATTR, "")
    return Attributes(
        mode=_mode(metadata.get("mode", ""), info, default.mode),
        uid=_id(metadata.get("uid", ""), default.uid),
        gid=_id(metadata.get("gid", ""), default.gid),
        mtime_ns=default.mtime_ns if mtime_ns is None else mtime_ns,
        atime_ns=_time_from_text(metadata.get("atime", "")),
        ctime_ns=_time_from_text(metadata.get("ctime", "")),
        rdev=_rdev(metadata.get("rdev", "")),
        xattrs=xattrs if len(xattrs) <= XATTR_MAX else "",
    )


def default_attributes(info: ObjectInfo) -> Attributes:
    """Return the attributes of an object that has none: the gateway's user, the store's time."""
    mode = DIRECTORY_MODE if info.key.endswith("/") else FILE_MODE
    return Attributes(mode=mode, uid=os.geteuid(), gid=os.getegid(), mtime_ns=info.mtime_ns)


def _mode(text: str, info: ObjectInfo, default: int) -> int:
    """Only a marker object is a directory, only what is short enough is a symlink, and only what
    is empty a device.
    """
    mode = _mode_from_text(text)
    if mode is None:
        return default
    if stat.S_ISLNK(mode) and 0 < info.size <= SYMLINK_MAX and not info.key.endswith("/"):
        return mode
    if stat.S_IFMT(mode) in _SPECIAL and not info.size and not info.key.endswith("/"):
        return mode
    return stat.S_IFMT(default) | (mode & _PERMISSIONS)


def _rdev(text: str) -> int:
    return int(text) if _DIGITS.fullmatch(text) and int(text) <= _RDEV_MAX else 0


def _mode_from_text(text: str) -> int | None:
    if not _DIGITS.fullmatch(text):
        return None
    for base in (10, 8):
        if base == 8 and not set(text) <= set("01234567"):
            return None
        mode = int(text, base)
        kind = mode & ~_PERMISSIONS
        if kind in _TYPES or (kind == 0 and base == 10):
            return mode
    return None


def _id(text: str, default: int) -> int:
    if not _DIGITS.fullmatch(text) or int(text) > _ID_MAX:
        return default
    return int(text)


def _text_from_time(time_ns: int) -> str:
    seconds, fraction = divmod(abs(time_ns), SECOND_NS)
    return f"{'-' if time_ns < 0 else ''}{seconds}.{fraction:09}"


def _time_from_text(text: str) -> int | None:
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    fraction = (match[3] or "")[:9].ljust(9, "0")
    time_ns = int(match[2]) * SECOND_NS + int(fraction)
    if time_ns > _TIME_MAX:
        return None
    return -time_ns if match[1] else time_ns

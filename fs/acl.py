"""POSIX access control lists as the kernel gives and takes them, and the mode that goes with them.

An ACL and the permission bits of a mode say the same of the owner, of others, and of the most that
the group may; who changes one changes the other. One that says no more than a mode is none.

The form is that of Linux, `include/uapi/linux/posix_acl_xattr.h`: a version, then entries of tag,
permissions and id.
"""

import errno
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from backgate.gateway.errors import FileError

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"

_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20
_NAMED = (0x02, 0x08)  # a user, a group
_RWX = 0o7


@dataclass(frozen=True, slots=True)
class _Entry:
    tag: int
    permissions: int
    id: int


def shown_with(mode: int, acl: bytes) -> tuple[int, bytes | None]:
    """Return the mode of a file that had `mode` and gets `acl`, and what is left to be kept of it.

    Raises `FileError` (EINVAL) for what is no ACL.
    """
    entries = _parsed(acl)
    bits = {entry.tag: entry.permissions for entry in entries if entry.tag not in _NAMED}
    if not {_USER_OBJ, _GROUP_OBJ, _OTHER} <= bits.keys():
        raise FileError(errno.EINVAL, ACCESS)
    group = bits.get(_MASK, bits[_GROUP_OBJ])
    mode = mode & ~0o777 | bits[_USER_OBJ] << 6 | group << 3 | bits[_OTHER]
    is_mode_alone = _MASK not in bits and len(entries) == len(bits)
    return mode, None if is_mode_alone else acl


def limited_to(acl: bytes, mode: int) -> bytes:
    """Return `acl` as chmod(2) to `mode` leaves it; what is no ACL stays as it is."""
    try:
        entries = _parsed(acl)
    except FileError:
        return acl
    group_tag = _MASK if any(entry.tag == _MASK for entry in entries) else _GROUP_OBJ
    new = {_USER_OBJ: mode >> 6 & _RWX, group_tag: mode >> 3 & _RWX, _OTHER: mode & _RWX}
    return _HEADER.pack(_VERSION) + b"".join(
        _ENTRY.pack(one.tag, new.get(one.tag, one.permissions), one.id) for one in entries
    )


def inherited(xattrs: Mapping[bytes, bytes], mode: int) -> tuple[int, dict[bytes, bytes]]:
    """Return mode and extended attributes of what is made with `mode` in a directory of `xattrs`.

    Its default ACL limits the mode, and is the default of the directories below too.
    """
    default = xattrs.get(DEFAULT)
    if default is None or stat.S_ISLNK(mode):
        return mode, {}
    try:
        most, _ = shown_with(mode, default)
    except FileError:
        return mode, {}
    mode &= most | ~0o777
    mode, access = shown_with(mode, limited_to(default, mode))
    found = {} if access is None else {ACCESS: access}
    return mode, found | ({DEFAULT: default} if stat.S_ISDIR(mode) else {})


def _parsed(acl: bytes) -> list[_Entry]:
    body = memoryview(acl)[_HEADER.size :]
    if len(acl) < _HEADER.size or len(body) % _ENTRY.size:
        raise FileError(errno.EINVAL, ACCESS)
    if _HEADER.unpack_from(acl)[0] != _VERSION:
        raise FileError(errno.EINVAL, ACCESS)
    entries = [_Entry(*values) for values in _ENTRY.iter_unpack(body)]
    if any(entry.permissions & ~_RWX for entry in entries):
        raise FileError(errno.EINVAL, ACCESS)
    return entries

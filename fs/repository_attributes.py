"""Attributes of what is in a repository: as it is made, and as a change leaves them."""

import errno
import stat
import time
from collections.abc import Mapping

from msgspec.structs import replace

from backgate.fs.acl import ACCESS, inherited, limited_to, shown_with
from backgate.fs.tree import Changes
from backgate.gateway.attributes import Attributes
from backgate.gateway.errors import FileError
from backgate.gateway.xattrs import text_of, xattrs_of


def new_attributes(
    mode: int, uid: int, gid: int, above: Mapping[bytes, bytes], rdev: int = 0
) -> Attributes:
    """Return the attributes of what is made now, in a directory with the attributes `above`."""
    now_ns = time.time_ns()
    mode, xattrs = inherited(above, mode)
    return Attributes(
        mode=mode,
        uid=uid,
        gid=gid,
        mtime_ns=now_ns,
        ctime_ns=now_ns,
        rdev=rdev,
        xattrs=text_of(xattrs),
    )


def changed(attributes: Attributes, changes: Changes) -> Attributes:
    """Return `attributes` with what `changes` says of them.

    Raises `FileError`: EINVAL for what is no ACL, ENODATA for an attribute that is to go and is not
    there.
    """
    mode, xattrs = attributes.mode, dict(xattrs_of(attributes.xattrs))
    if changes.mode is not None:
        mode = stat.S_IFMT(mode) | stat.S_IMODE(changes.mode)
        if ACCESS in xattrs:
            xattrs[ACCESS] = limited_to(xattrs[ACCESS], mode)
    for name, value in changes.xattrs.items():
        if value is None:
            _remove(xattrs, name)
            continue
        kept: bytes | None = value
        if name == ACCESS:
            mode, kept = shown_with(mode, value)
        xattrs.pop(name, None)
        if kept is not None:
            xattrs[name] = kept
    return replace(
        attributes,
        mode=mode,
        uid=attributes.uid if changes.uid is None else changes.uid,
        gid=attributes.gid if changes.gid is None else changes.gid,
        mtime_ns=attributes.mtime_ns if changes.mtime_ns is None else changes.mtime_ns,
        atime_ns=attributes.atime_ns if changes.atime_ns is None else changes.atime_ns,
        ctime_ns=time.time_ns(),
        xattrs=text_of(xattrs) if changes.xattrs or ACCESS in xattrs else attributes.xattrs,
    )


def _remove(xattrs: dict[bytes, bytes], name: bytes) -> None:
    if xattrs.pop(name, None) is None and not name.startswith(b"system.posix_acl_"):
        raise FileError(errno.ENODATA, name)  # an ACL that says no more than the mode is none

"""Make local files of a tree's entries: contents, owners, modes, xattrs and times, as they were.

Every call works in a directory that is held open, by a name that is no path, and follows no
symlink: an entry of a hostile backup cannot make us write outside the directory that was asked for.
"""

import errno
import fcntl
import hashlib
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from backgate.fs.tree import Entry
from backgate.gateway.errors import FileError

PRIVATE_DIRECTORY = 0o700  # until all is in it and its own mode is set
PRIVATE_FILE = 0o600
NAME_KEPT = 200  # bytes of a name in its partial file's, which may have 255
HASH_DIGITS = 8  # hex digits that tell versions of one file apart
HOLE = 64 * 1024  # bytes; runs of zeros are looked for in pieces of this size
_ZEROS = bytes(HOLE)
_SPECIAL = (stat.S_ISFIFO, stat.S_ISSOCK, stat.S_ISCHR, stat.S_ISBLK)
_SET_IDS = stat.S_ISUID | stat.S_ISGID
# What a file system or a user without privileges answers for an attribute it does not keep.
_NOT_KEPT = (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL)
# What it answers for a name or a value that is too long for it; the file's content is worth more.
_CANNOT_BE = (errno.ERANGE, errno.E2BIG, errno.ENOSPC)

log = logging.getLogger(__name__)


def make_directory(parent: int, name: bytes) -> int:
    """Open the directory `name` in `parent`, made if it is not there; never through a symlink."""
    with suppress(FileExistsError):
        os.mkdir(name, PRIVATE_DIRECTORY, dir_fd=parent)
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    with suppress(PermissionError):  # restored before, and closed to its owner's writing
        os.fchmod(descriptor, PRIVATE_DIRECTORY)
    return descriptor


def has_content(parent: int, entry: Entry) -> bool:
    """True when the file is there with the size and time of `entry`: then it was copied before."""
    try:
        status = os.stat(entry.name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    is_same = (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns)
    return stat.S_ISREG(status.st_mode) and is_same


@contextmanager
def partial_file(parent: int, entry: Entry) -> Iterator[int]:
    """Open the file in which `entry`'s content is collected; it stays behind when we fail.

    Its name tells the version, so that a later run goes on with it and with no other.
    Raises `FileError` (EBUSY) when another copy is writing it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(partial_name(entry), flags, PRIVATE_FILE, dir_fd=parent)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    except BlockingIOError:
        raise FileError(errno.EBUSY, entry.name, "another copy is writing it") from None
    finally:
        os.close(descriptor)


def publish(parent: int, descriptor: int, entry: Entry, xattrs: Mapping[bytes, bytes]) -> None:
    """Give the partial file its attributes and its name, in place of what had it."""
    os.ftruncate(descriptor, entry.size)
    set_attributes(descriptor, entry, xattrs)
    os.replace(partial_name(entry), entry.name, src_dir_fd=parent, dst_dir_fd=parent)


def partial_name(entry: Entry) -> bytes:
    """Return the name of `entry`'s partial file."""
    version = b"%s %d %d" % (entry.name, entry.size, entry.mtime_ns)
    digest = hashlib.sha256(version).hexdigest()[:HASH_DIGITS].encode()
    return b".%s.%s.backgate-part" % (entry.name[:NAME_KEPT], digest)


def write_sparsely(descriptor: int, offset: int, data: bytes | memoryview) -> None:
    """Write `data` at `offset`, leaving holes where it is zeros, and end the file behind it."""
    view = memoryview(data)
    for start in range(0, len(view), HOLE):
        piece = view[start : start + HOLE]
        if piece != _ZEROS[: len(piece)]:
            _write(descriptor, offset + start, piece)
    os.ftruncate(descriptor, offset + len(view))


def set_file_attributes(parent: int, entry: Entry, xattrs: Mapping[bytes, bytes]) -> None:
    """Give a file whose content is right the attributes of `entry`."""
    descriptor = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
    try:
        set_attributes(descriptor, entry, xattrs)
    finally:
        os.close(descriptor)


def make_symlink(parent: int, entry: Entry) -> None:
    """Make a symlink, in place of what had its name."""
    with _replacing(parent, entry) as name:
        os.symlink(entry.target or b"", name, dir_fd=parent)
        if os.geteuid() == 0:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=_times(entry), dir_fd=parent, follow_symlinks=False)


def make_link(top: int, first: bytes, parent: int, entry: Entry) -> None:
    """Make a hard link to `first`, a path below the directory `top` that was made by us."""
    with suppress(FileNotFoundError):
        here = os.stat(entry.name, dir_fd=parent, follow_symlinks=False)
        if os.path.samestat(here, os.stat(first, dir_fd=top, follow_symlinks=False)):
            return
    with _replacing(parent, entry) as name:
        os.link(first, name, src_dir_fd=top, dst_dir_fd=parent, follow_symlinks=False)


def make_special(parent: int, entry: Entry) -> None:
    """Make a fifo, a socket or a device; `FileError` (EPERM) for a device without privileges."""
    if not any(is_kind(entry.mode) for is_kind in _SPECIAL):
        raise FileError(errno.EINVAL, entry.name, f"unknown type of file {entry.mode:#o}")
    try:
        with _replacing(parent, entry) as name:
            os.mknod(name, stat.S_IFMT(entry.mode) | PRIVATE_FILE, entry.rdev, dir_fd=parent)
            if os.geteuid() == 0:
                os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
            os.chmod(name, stat.S_IMODE(entry.mode), dir_fd=parent)
            os.utime(name, ns=_times(entry), dir_fd=parent, follow_symlinks=False)
    except PermissionError as error:
        raise FileError(errno.EPERM, entry.name, "only root can make a device") from error


@contextmanager
def _replacing(parent: int, entry: Entry) -> Iterator[bytes]:
    """Provide a name to make something under, that then replaces what is called as `entry`."""
    name = partial_name(entry)
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)
    yield name
    os.replace(name, entry.name, src_dir_fd=parent, dst_dir_fd=parent)


def _write(descriptor: int, offset: int, data: memoryview) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def set_attributes(descriptor: int, entry: Entry, xattrs: Mapping[bytes, bytes]) -> None:
    """Give an open file or directory the attributes of `entry`.

    In this order: chown clears set-id bits, and everything but utime changes times.
    """
    mode = stat.S_IMODE(entry.mode)
    if os.geteuid() == 0:
        os.chown(descriptor, entry.uid, entry.gid)
    elif (os.fstat(descriptor).st_uid, os.fstat(descriptor).st_gid) != (entry.uid, entry.gid):
        mode &= ~_SET_IDS  # a program that ran as its owner must not run as whoever restores it
    for name, value in xattrs.items():
        _set_xattr(descriptor, name, value)
    os.fchmod(descriptor, mode)
    os.utime(descriptor, ns=_times(entry))


def _set_xattr(descriptor: int, name: bytes, value: bytes) -> None:
    try:
        os.setxattr(descriptor, name, value)
    except ValueError as error:
        log.warning("extended attribute %r is left out: %s", name, error)
    except OSError as error:
        if error.errno in _CANNOT_BE:
            log.warning("extended attribute %r is left out: %s", name, error.strerror)
        elif error.errno in _NOT_KEPT:
            log.debug("extended attribute %r is not kept here: %s", name, error.strerror)
        else:
            raise


def _times(entry: Entry) -> tuple[int, int]:
    atime_ns = entry.mtime_ns if entry.atime_ns is None else entry.atime_ns
    return atime_ns, entry.mtime_ns

"""What is done to files below a root: relative to descriptors, and never through a symlink."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from backgate.gateway.errors import Refused, StoreError, StoreFull, Unreachable
from backgate.gateway.provider import Body
from backgate.gateway.providers.local_names import Place
from backgate.gateway.units import MIB

COPY_AT_ONCE = 64 * MIB  # bytes per copy_file_range(2)
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
ABSENT = (FileNotFoundError, NotADirectoryError)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a fifo must not block us
_PASSING = {
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.ENOTCONN,
    errno.ENFILE,
    errno.EMFILE,
    errno.EAGAIN,
    errno.ENOMEM,
}


@contextmanager
def translated(store: str, verb: str, key: str | None = None) -> Iterator[None]:
    """Raise our error for what the operating system raises inside."""
    try:
        yield
    except OSError as error:
        what = f"{store}: {verb}" if key is None else f"{store}: {verb} {key!r}"
        message = f"{what}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreFull(message, key=key) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Refused(message, key=key) from error
        if error.errno in _PASSING:
            raise Unreachable(message, key=key) from error
        raise StoreError(message, key=key) from error


def descend(top: int, parts: Sequence[bytes], *, create: bool = False) -> int:
    """Return a descriptor of the directory `parts` below `top`; symlinks lead nowhere.

    Raises `FileNotFoundError`, and `NotADirectoryError` where something else is in the way.
    """
    here = os.dup(top)
    for part in parts:
        try:
            if create:
                _make_directory(here, part)
            there = os.open(part, _DIRECTORY, dir_fd=here)
        finally:
            os.close(here)
        here = there
    return here


def write_all(descriptor: int, body: Body) -> None:
    """Write `body` whole; write(2) may stop half-way."""
    left = memoryview(body).cast("B")
    while left:
        left = left[os.write(descriptor, left) :]


def copy_range(source: int, start: int, stop: int, target: int) -> None:
    """Append `[start, stop)` of one file to another, in the kernel where it can.

    Raises `OSError` when the file ends before `stop`: half an object must not be published.
    """
    try:
        # 0 is the end of the file, or what some kernels answer for some file systems' files.
        while start < stop:
            copied = os.copy_file_range(source, target, min(COPY_AT_ONCE, stop - start), start)
            if copied == 0:
                break
            start += copied
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    while start < stop:
        data = os.pread(source, min(MIB, stop - start), start)
        if not data:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        write_all(target, data)
        start += len(data)


def remove_tree(top: int, place: Place) -> bool:
    """Remove a directory of ours with all in it; false when it was not there."""
    try:
        folder = descend(top, place.directory)
    except ABSENT:
        return False
    try:
        shutil.rmtree(place.name, dir_fd=folder)
    except FileNotFoundError:
        return False
    finally:
        os.close(folder)
    return True


def opened_file(top: int, place: Place) -> int | None:
    try:
        folder = descend(top, place.directory)
    except ABSENT:
        return None
    try:
        descriptor = os.open(place.name, _FILE, dir_fd=folder)
    except ABSENT:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return None  # a symlink, or a socket
        raise
    finally:
        os.close(folder)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def _make_directory(folder: int, name: bytes) -> None:
    try:
        os.mkdir(name, dir_fd=folder)
    except FileExistsError:
        return
    os.fsync(folder)


def moved(top: int, source: Place, target: Place) -> int | None:
    """Move a file where it should be; None when a directory or a file is in its way."""
    try:
        return move(top, source, target)
    except (NotADirectoryError, IsADirectoryError):
        return None


def move(top: int, source: Place, target: Place) -> int:
    """Move a file and return a descriptor of its new directory, which is not synchronized yet."""
    folder = descend(top, target.directory, create=True)
    try:
        there = descend(top, source.directory)
        try:
            os.rename(source.name, target.name, src_dir_fd=there, dst_dir_fd=folder)
        finally:
            os.close(there)
    except BaseException:
        os.close(folder)
        raise
    return folder


def synchronize(folder: int) -> None:
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def removed(top: int, place: Place) -> bool:
    try:
        folder = descend(top, place.directory)
    except ABSENT:
        return False
    try:
        os.unlink(place.name, dir_fd=folder)
        os.fsync(folder)
    except (FileNotFoundError, IsADirectoryError):
        return False
    finally:
        os.close(folder)
    return True

"""Files below one root: opened without following a symlink, published whole or not at all."""

import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import msgspec

from backgate.gateway.errors import AlreadyThere, Unreachable
from backgate.gateway.providers.local_names import (
    ODD,
    PRIVATE,
    Place,
    odd_place,
    plain_parts,
    plain_place,
)
from backgate.gateway.providers.local_paths import (
    ABSENT,
    NEW,
    descend,
    move,
    moved,
    opened_file,
    removed,
    synchronize,
    write_all,
)
from backgate.gateway.units import MIB

METADATA = "user.backgate.metadata"  # extended attribute; a JSON object of texts
TEMPORARY = (PRIVATE, b"tmp")
SIDECARS = (PRIVATE, b"metadata")  # where extended attributes are not supported
STALE = 24 * 3600  # seconds; a temporary file this old was left by a crash

_NO_XATTR = {errno.ENOTSUP, errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EPERM}


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A regular file open for reading."""

    descriptor: int
    status: os.stat_result


class Files:
    """The files of one store. Every method takes `top`, a descriptor of the root from `opened`."""

    def __init__(self, path: str, *, use_xattrs: bool = True) -> None:
        self.path = path
        self._use_xattrs = use_xattrs
        self._root: tuple[int, int] | None = None  # device and inode, when first seen
        self._is_prepared = False

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Open the root; one that is gone, or another than before, is `Unreachable`, not empty."""
        try:
            top = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (*ABSENT, PermissionError) as error:
            raise Unreachable(f"{self.path}: {error.strerror}") from error
        try:
            status = os.fstat(top)
            self._root = self._root or (status.st_dev, status.st_ino)
            if self._root != (status.st_dev, status.st_ino):
                raise Unreachable(f"{self.path}: another directory than before: is it mounted?")
            yield top
        finally:
            os.close(top)

    @contextmanager
    def found(self, top: int, key: str) -> Iterator[OpenFile | None]:
        """Open the object `key` for reading; None when there is none."""
        plain = plain_place(key)
        descriptor = None if plain is None else opened_file(top, plain)
        if descriptor is None:
            descriptor = opened_file(top, odd_place(key))
        if descriptor is None:
            yield None
            return
        try:
            yield OpenFile(descriptor, os.fstat(descriptor))
        finally:
            os.close(descriptor)

    @contextmanager
    def temporary(self, top: int) -> Iterator[tuple[int, Place]]:
        """Open a new file that vanishes unless it was published before the context ends."""
        self._prepare(top)
        place = Place(TEMPORARY, uuid.uuid4().hex.encode())
        folder = descend(top, place.directory)
        try:
            descriptor = os.open(place.name, NEW, 0o666, dir_fd=folder)
            try:
                yield descriptor, place
            finally:
                os.close(descriptor)
                with suppress(FileNotFoundError):
                    os.unlink(place.name, dir_fd=folder)
        finally:
            os.close(folder)

    def seal(self, top: int, descriptor: int, metadata: Mapping[str, str]) -> os.stat_result:
        """Give a temporary file its metadata and its time, make it durable, and return its status.

        The time is exact to the nanosecond: etags are made of it.
        """
        now = time.time_ns()
        os.utime(descriptor, ns=(now, now))
        if metadata:
            self._write_metadata(top, descriptor, msgspec.json.encode(dict(metadata)))
        os.fsync(descriptor)
        return os.fstat(descriptor)

    def metadata(self, top: int, file: OpenFile) -> dict[str, str]:
        """Return what `seal` was given; nothing for a file that another program wrote."""
        try:
            text = os.getxattr(file.descriptor, METADATA)
        except OSError as error:
            if error.errno not in (errno.ENODATA, *_NO_XATTR):
                raise  # nobody could say what it has
            text = self._sidecar(top, file.status) or b"{}"
        try:
            return msgspec.json.decode(text, type=dict[str, str])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return {}

    def publish(self, top: int, temporary: Place, key: str, *, if_absent: bool) -> None:
        """Make a sealed temporary file the object `key`; raises `AlreadyThere`."""
        with self._exclusive(top):
            old = self._status(top, key)
            if if_absent and old is not None:
                raise AlreadyThere(f"{self.path}: put {key!r}: already there", key=key)
            plain = plain_place(key)
            folder = None if plain is None else moved(top, temporary, plain)
            if folder is not None:
                removed(top, odd_place(key))
            else:
                folder = move(top, temporary, odd_place(key))
                self._make_marked(top, key)
            if old is not None:
                self._remove_sidecar(top, old)
        synchronize(folder)  # not under the lock: others may publish meanwhile

    def remove(self, top: int, key: str) -> None:
        """Remove the object `key`, and the directories that are empty without it."""
        if self._status(top, key) is None:
            return
        with self._exclusive(top):
            old = self._status(top, key)
            plain = plain_place(key)
            if plain is not None:
                removed(top, plain)
            removed(top, odd_place(key))
            self._prune(top, plain_parts(key.removesuffix("/")), is_marker=key.endswith("/"))
            if old is not None:
                self._remove_sidecar(top, old)

    def _prepare(self, top: int) -> None:
        """Make our own directories, and remove what a crash left behind; once."""
        if self._is_prepared:
            return
        with suppress(FileExistsError):
            os.mkdir(PRIVATE, 0o700, dir_fd=top)
        for folder in (ODD, SIDECARS, TEMPORARY):
            os.close(descend(top, folder, create=True))
        folder_fd = descend(top, TEMPORARY)
        try:
            for name in os.listdir(folder_fd):
                with suppress(FileNotFoundError):
                    if time.time() - os.stat(name, dir_fd=folder_fd).st_mtime > STALE:
                        os.unlink(name, dir_fd=folder_fd)
        finally:
            os.close(folder_fd)
        self._is_prepared = True

    @contextmanager
    def _exclusive(self, top: int) -> Iterator[None]:
        """Keep every other thread and process from publishing and removing."""
        self._prepare(top)
        folder = descend(top, (PRIVATE,))
        try:
            lock = os.open(b"lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _status(self, top: int, key: str) -> os.stat_result | None:
        with self.found(top, key) as file:
            return None if file is None else file.status

    def _make_marked(self, top: int, key: str) -> None:
        """A marker's directory is there for whoever looks natively, where that is possible."""
        parts = plain_parts(key.removesuffix("/")) if key.endswith("/") else None
        if parts is not None:
            with suppress(NotADirectoryError):
                os.close(descend(top, parts, create=True))

    def _prune(self, top: int, parts: Sequence[bytes] | None, *, is_marker: bool) -> None:
        """Remove the directories of `parts` from below, as far as they are empty and unmarked."""
        if parts is None:
            return
        for depth in range(len(parts) - (not is_marker), 0, -1):
            marker = b"/".join(parts[:depth]).decode("utf-8", "surrogatepass") + "/"
            if self._is_odd(top, marker):
                return
            try:
                folder = descend(top, parts[: depth - 1])
            except ABSENT:
                continue
            try:
                os.rmdir(parts[depth - 1], dir_fd=folder)
            except FileNotFoundError:
                continue
            except OSError:
                return  # not empty, or not a directory
            finally:
                os.close(folder)

    def _is_odd(self, top: int, key: str) -> bool:
        descriptor = opened_file(top, odd_place(key))
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is not None

    def _write_metadata(self, top: int, descriptor: int, text: bytes) -> None:
        if self._use_xattrs:
            try:
                os.setxattr(descriptor, METADATA, text)
                return
            except OSError as error:
                if error.errno not in _NO_XATTR:
                    raise
        folder = descend(top, SIDECARS)
        try:
            name = _identity(os.fstat(descriptor))
            sidecar = os.open(name, NEW, 0o666, dir_fd=folder)
            try:
                write_all(sidecar, text)
                os.fsync(sidecar)
            finally:
                os.close(sidecar)
            os.fsync(folder)
        finally:
            os.close(folder)

    def _sidecar(self, top: int, status: os.stat_result) -> bytes | None:
        descriptor = opened_file(top, Place(SIDECARS, _identity(status)))
        if descriptor is None:
            return None
        try:
            return os.read(descriptor, MIB)
        finally:
            os.close(descriptor)

    def _remove_sidecar(self, top: int, status: os.stat_result) -> None:
        removed(top, Place(SIDECARS, _identity(status)))


def _identity(status: os.stat_result) -> bytes:
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}".encode()

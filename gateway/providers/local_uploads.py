"""Multipart uploads of a local store: a directory of parts each, joined when they are committed."""

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from backgate.gateway.errors import NotFound, StoreError
from backgate.gateway.provider import Body, PendingUpload
from backgate.gateway.providers.local_files import Files, OpenFile
from backgate.gateway.providers.local_names import PRIVATE, Place
from backgate.gateway.providers.local_paths import (
    ABSENT,
    copy_range,
    descend,
    remove_tree,
    write_all,
)

UPLOADS = (PRIVATE, b"uploads")
ABOUT_MAX = 64 * 1024  # bytes of what is kept about an upload

Fill = Callable[[int], None]  # writes to a descriptor

_ABOUT = b"about"
_ID = re.compile(r"[0-9a-f]{32}")


class About(msgspec.Struct):
    """What an upload was begun with."""

    key: str
    begun_ns: int
    metadata: dict[str, str]


class Uploads:
    """The uploads of one store that are pending."""

    def __init__(self, files: Files, name: str) -> None:
        self._files, self._name = files, name

    def begin(self, top: int, key: str, metadata: Mapping[str, str]) -> str:
        upload = uuid.uuid4().hex
        about = msgspec.json.encode(About(key, time.time_ns(), dict(metadata)))
        os.close(descend(top, (*UPLOADS, upload.encode()), create=True))
        self._write(top, upload, _ABOUT, lambda target: write_all(target, about))
        return upload

    def put(self, top: int, key: str, upload: str, number: int, body: Body) -> str:
        self.about(top, key, upload)
        return self._write(top, upload, b"%05d" % number, lambda file: write_all(file, body))

    def copy(
        self, top: int, key: str, upload: str, number: int, source: OpenFile, span: tuple[int, int]
    ) -> str:
        self.about(top, key, upload)
        stop = min(span[1], source.status.st_size)
        return self._write(
            top,
            upload,
            b"%05d" % number,
            lambda file: copy_range(source.descriptor, span[0], stop, file),
        )

    def join(
        self, top: int, key: str, upload: str, parts: Sequence[tuple[int, str]], target: int
    ) -> None:
        """Append all `parts` to the file `target`; `StoreError` when one is not as it was sent."""
        folder = descend(top, (*UPLOADS, upload.encode()))
        try:
            for number, etag in parts:
                with _part(folder, number) as file:
                    if file is None or etag_of(file.status) != etag:
                        raise StoreError(
                            f"{self._name}: commit {key!r}: no part {number} with etag {etag}",
                            key=key,
                        )
                    copy_range(file.descriptor, 0, file.status.st_size, target)
        finally:
            os.close(folder)

    def about(self, top: int, key: str, upload: str) -> About:
        """Return what the upload was begun with; `NotFound` when it is not pending."""
        about = self._about(top, upload)
        if about is None or about.key != key:
            raise NotFound(f"{self._name}: no upload {upload!r} of {key!r}", key=key)
        return about

    def remove(self, top: int, upload: str) -> None:
        if _ID.fullmatch(upload):
            remove_tree(top, Place(UPLOADS, upload.encode()))

    def pending(self, top: int, prefix: str) -> list[PendingUpload]:
        try:
            folder = descend(top, UPLOADS)
        except ABSENT:
            return []
        try:
            names = os.listdir(folder)
        finally:
            os.close(folder)
        known = [(upload, self._about(top, upload)) for upload in names]
        return [
            PendingUpload(about.key, upload, about.begun_ns)
            for upload, about in known
            if about is not None and about.key.startswith(prefix)
        ]

    def _about(self, top: int, upload: str) -> About | None:
        if not _ID.fullmatch(upload):
            return None
        try:
            folder = descend(top, (*UPLOADS, upload.encode()))
        except ABSENT:
            return None
        try:
            file = os.open(_ABOUT, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except ABSENT:
            return None
        finally:
            os.close(folder)
        try:
            return msgspec.json.decode(os.read(file, ABOUT_MAX), type=About)
        except msgspec.DecodeError:
            return None
        finally:
            os.close(file)

    def _write(self, top: int, upload: str, name: bytes, fill: Fill) -> str:
        """Put a file into the upload's directory, whole or not at all, and return its etag."""
        with self._files.temporary(top) as (descriptor, place):
            fill(descriptor)
            status = self._files.seal(top, descriptor, {})
            source = descend(top, place.directory)
            try:
                folder = descend(top, (*UPLOADS, upload.encode()))
                try:
                    os.rename(place.name, name, src_dir_fd=source, dst_dir_fd=folder)
                finally:
                    os.close(folder)
            finally:
                os.close(source)
        return etag_of(status)


def etag_of(status: os.stat_result) -> str:
    """Return what names this version of a file: a new one has another inode, or a later time."""
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


@contextmanager
def _part(folder: int, number: int) -> Iterator[OpenFile | None]:
    try:
        descriptor = os.open(b"%05d" % number, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        yield None
        return
    try:
        yield OpenFile(descriptor, os.fstat(descriptor))
    finally:
        os.close(descriptor)

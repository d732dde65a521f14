"""A directory as an object store.

Keys are paths and objects are plain files, so that what Backgate wrote is read natively by the tool
that wrote it, and the other way round. A key that no file can have as its path, or whose path is
taken (`a` beside `a/b`, a marker `a/`, `..`, `//`, a component of 300 bytes) is kept all the same,
under an escaped name in `.backgate/odd`. Symlinks are not followed: they are no objects.

User metadata lies in an extended attribute, or in `.backgate/metadata` where the file system has
none. A write goes to `.backgate/tmp`, is synced and renamed, so that an object is whole or absent.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import Credentials
from backgate.gateway.errors import NotFound, Refused, Replaced, StoreError, Unreachable
from backgate.gateway.provider import (
    NO_METADATA,
    Abilities,
    Body,
    Limits,
    ObjectInfo,
    Page,
    PendingUpload,
    Provider,
)
from backgate.gateway.providers import grouping
from backgate.gateway.providers.local_directories import Directories
from backgate.gateway.providers.local_files import Files, OpenFile
from backgate.gateway.providers.local_paths import ABSENT, copy_range, translated, write_all
from backgate.gateway.providers.local_uploads import Uploads, etag_of
from backgate.gateway.providers.local_walk import Wanted, walk
from backgate.gateway.units import TIB

FILE_MAX = 16 * TIB  # bytes; ext4's limit, the smallest of those in use
LIMITS = Limits(
    part_min=1,
    part_max=FILE_MAX,
    put_max=FILE_MAX,
    object_max=FILE_MAX,
    copy_max=FILE_MAX,
    page_max=10_000,
)


class Local(Provider):
    """The directory `path`. `use_xattrs` is off only where they are known not to last."""

    def __init__(self, path: str, *, use_xattrs: bool = True) -> None:
        self.name = f"file://{path}"
        self.abilities = Abilities(limits=LIMITS)
        self._path = path
        self._files = Files(path, use_xattrs=use_xattrs)
        self._uploads = Uploads(self._files, self.name)
        self._directories = Directories()

    def check(self) -> None:
        try:
            with self._opened("check") as top:
                os.scandir(top).close()
        except Unreachable as error:
            if isinstance(error.__cause__, PermissionError):
                raise Refused(f"{self.name}: permission denied") from error
            if isinstance(error.__cause__, ABSENT):
                raise NotFound(f"{self.name}: there is no such directory") from error
            raise

    def head(self, key: str) -> ObjectInfo:
        with self._opened("head", key) as top, self._found(top, key) as file:
            return self._info(key, file.status, self._files.metadata(top, file))

    def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        with self._opened("get", key) as top, self._found(top, key) as file:
            if etag is not None and etag != etag_of(file.status):
                raise Replaced(f"{self.name}: get {key!r}: another version now", key=key)
            stop = min(stop, file.status.st_size)
            if start >= stop:
                return b""
            data = os.pread(file.descriptor, stop - start, start)
            if len(data) < stop - start:
                data += self._rest(file, key, start + len(data), stop)
            if etag is not None and etag != etag_of(os.fstat(file.descriptor)):
                raise Replaced(f"{self.name}: get {key!r}: it changed while it was read", key=key)
            return data

    def put(
        self,
        key: str,
        body: Body,
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        lower = self._accepted(key, metadata, len(body))
        with (
            self._opened("put", key) as top,
            self._files.temporary(top) as (descriptor, place),
        ):
            write_all(descriptor, body)
            status = self._files.seal(top, descriptor, lower)
            self._files.publish(top, place, key, if_absent=if_absent)
        return self._info(key, status, lower)

    def copy(
        self, source: str, target: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        lower = self._accepted(target, metadata or NO_METADATA)
        with (
            self._opened("copy", source) as top,
            self._found(top, source) as file,
            self._files.temporary(top) as (descriptor, place),
        ):
            copy_range(file.descriptor, 0, file.status.st_size, descriptor)
            kept = self._files.metadata(top, file) if metadata is None else lower
            status = self._files.seal(top, descriptor, kept)
            self._files.publish(top, place, target, if_absent=False)
        return self._info(target, status, kept)

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        failed: dict[str, Exception] = {}
        with self._opened("delete") as top:
            for key in keys:
                if self.abilities.fault(key) is not None:
                    continue  # what cannot be there is gone
                try:
                    with translated(self.name, "delete", key):
                        self._files.remove(top, key)
                except StoreError as error:
                    failed[key] = error
        return failed

    def page(
        self,
        prefix: str = "",
        delimiter: str = "",
        *,
        after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> Page:
        limit = min(limit, self.abilities.limits.page_max)
        statuses: dict[str, os.stat_result] = {}
        with self._opened("page") as top:
            start = grouping.start_of(after, token)
            key_max, is_shallow = self.abilities.limits.key_max, delimiter == "/"
            found = walk(top, self._directories, Wanted(prefix, start, key_max, is_shallow))
            with closing(found):

                def keys() -> Iterator[str]:
                    for key, status in found:
                        statuses[key] = status
                        yield key

                cut = grouping.cut(keys(), prefix, delimiter, limit, token)
        objects = [self._info(key, statuses[key], None) for key in cut.keys]
        return Page(objects, cut.prefixes, cut.token)

    def begin_upload(self, key: str, metadata: Mapping[str, str] = NO_METADATA) -> str:
        lower = self._accepted(key, metadata)
        with self._opened("begin_upload", key) as top:
            return self._uploads.begin(top, key, lower)

    def put_part(self, key: str, upload: str, number: int, body: Body) -> str:
        with self._opened("put_part", key) as top:
            return self._uploads.put(top, key, upload, number, body)

    def copy_part(
        self,
        key: str,
        upload: str,
        number: int,
        source: str,
        start: int,
        stop: int,
        etag: str | None = None,
    ) -> str:
        with self._opened("copy_part", key) as top, self._found(top, source) as file:
            copied = self._uploads.copy(top, key, upload, number, file, (start, stop))
            if etag is not None and etag != etag_of(os.fstat(file.descriptor)):
                raise Replaced(f"{self.name}: copy_part {source!r}: another version", key=source)
            return copied

    def commit_upload(
        self, key: str, upload: str, parts: Sequence[tuple[int, str]], *, if_absent: bool = False
    ) -> ObjectInfo:
        with (
            self._opened("commit_upload", key) as top,
            self._files.temporary(top) as (descriptor, place),
        ):
            metadata = self._uploads.about(top, key, upload).metadata
            self._uploads.join(top, key, upload, parts, descriptor)
            status = self._files.seal(top, descriptor, metadata)
            self._files.publish(top, place, key, if_absent=if_absent)
            self._uploads.remove(top, upload)
        return self._info(key, status, metadata)

    def abort_upload(self, key: str, upload: str) -> None:
        with self._opened("abort_upload", key) as top:
            self._uploads.remove(top, upload)

    def uploads(self, prefix: str = "") -> Sequence[PendingUpload]:
        with self._opened("uploads") as top:
            return self._uploads.pending(top, prefix)

    def close(self) -> None:
        """Nothing is kept open between requests."""

    @contextmanager
    def _opened(self, verb: str, key: str | None = None) -> Iterator[int]:
        with translated(self.name, verb, key), self._files.opened() as top:
            yield top

    @contextmanager
    def _found(self, top: int, key: str) -> Iterator[OpenFile]:
        if self.abilities.fault(key) is not None:
            raise NotFound(f"{self.name}: no object {key!r}", key=key)
        with self._files.found(top, key) as file:
            if file is None:
                raise NotFound(f"{self.name}: no object {key!r}", key=key)
            yield file

    def _accepted(self, key: str, metadata: Mapping[str, str], size: int = 0) -> dict[str, str]:
        self.refuse_what_it_cannot_hold(key, size, metadata)
        return {name.lower(): text for name, text in metadata.items()}

    def _rest(self, file: OpenFile, key: str, start: int, stop: int) -> bytes:
        """What one pread(2) did not give: it stops at 2 GiB."""
        pieces = []
        while start < stop:
            piece = os.pread(file.descriptor, stop - start, start)
            if not piece:
                raise Replaced(f"{self.name}: get {key!r}: it shrank while it was read", key=key)
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)

    def _info(
        self, key: str, status: os.stat_result, metadata: Mapping[str, str] | None
    ) -> ObjectInfo:
        return ObjectInfo(key, status.st_size, status.st_mtime_ns, etag_of(status), metadata)


def open_url(config: RepositoryConfig, credentials: Credentials | None) -> tuple[Provider, str]:
    """Return the directory that `file:///path`, or a plain path, names; it has no prefix."""
    path = config.url.partition("://")[2] if "://" in config.url else config.url
    return Local(os.path.abspath(path)), ""

"""A bucket in memory that can be told to fail: what everything above a provider is tested with."""

import hashlib
import threading
import time
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from msgspec.structs import replace

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import Credentials
from backgate.gateway.errors import (
    AlreadyThere,
    NotFound,
    Replaced,
    StoreError,
    Unreachable,
    Unsupported,
)
from backgate.gateway.provider import (
    NO_METADATA,
    Abilities,
    Body,
    ObjectInfo,
    Page,
    PendingUpload,
    Provider,
)
from backgate.gateway.providers import grouping

_named: dict[str, "Memory"] = {}  # what `memory:NAME` means in this process


@dataclass(slots=True, kw_only=True)
class Fault:
    """What goes wrong with requests that match; the first rule that still applies wins."""

    verb: str = "*"  # pattern of the method's name
    key: str = "*"  # pattern of the key; for page and uploads, of the prefix
    skip: int = 0  # matching requests that pass before it begins
    times: int | None = None  # requests it applies to; None: all
    error: Callable[[], Exception] | None = None  # raised instead of doing anything
    is_lost: bool = False  # the store does what was asked, and the answer is lost
    short: int | None = None  # keys that a page has at most
    delay: float = 0.0  # seconds; a thread sleeps them
    gate: threading.Event | None = None  # a thread waits for it

    @property
    def needs_thread(self) -> bool:
        return self.times != 0 and (self.delay > 0 or self.gate is not None)


@dataclass(frozen=True, slots=True)
class _Stored:
    info: ObjectInfo
    data: bytes


@dataclass(slots=True)
class _Upload:
    pending: PendingUpload
    metadata: Mapping[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


class Memory(Provider):
    """Objects in a dict. `faults` may be changed at any time; `requests` lists what was asked.

    Where `abilities.lists_in_order` is false it lists as SeaweedFS does: directory by directory,
    with `a/` sorted as `a`.
    """

    def __init__(self, name: str = "memory:test", abilities: Abilities | None = None) -> None:
        self.name = name
        self.abilities = abilities or Abilities()
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []  # (verb, key or prefix)
        self.is_closed = False
        self._objects: dict[str, _Stored] = {}
        self._uploads: dict[str, _Upload] = {}
        self._sorted: list[tuple[Any, str]] | None = None  # None: to be made again
        self._lock = threading.RLock()
        self._time_ns = 0

    @property
    def is_instant(self) -> bool:
        return not any(fault.needs_thread for fault in self.faults)

    def check(self) -> None:
        with self._request("check", ""):
            pass

    def head(self, key: str) -> ObjectInfo:
        with self._request("head", key):
            return self._stored(key).info

    def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        with self._request("get", key):
            stored = self._stored(key)
            if etag is not None and etag != stored.info.etag:
                raise Replaced(f"{self.name}: {key!r} is another version now", key=key)
            return stored.data[start:stop]

    def put(
        self,
        key: str,
        body: Body,
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        with self._request("put", key):
            data = bytes(body)
            return self._store(key, data, _md5(data), metadata, if_absent=if_absent)

    def copy(
        self, source: str, target: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        with self._request("copy", source):
            if not self.abilities.copies_objects:
                raise Unsupported(f"{self.name}: cannot copy", key=source)
            stored = self._stored(source)
            kept = stored.info.metadata or {} if metadata is None else metadata
            return self._store(target, stored.data, stored.info.etag, kept)

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        if len(keys) > self.abilities.limits.delete_max:
            raise StoreError(f"{self.name}: {len(keys)} keys in one delete")
        failed: dict[str, Exception] = {}
        for key in keys:
            try:
                with self._request("delete", key):
                    self._objects.pop(key, None)
                    self._sorted = None
            except StoreError as error:
                failed[key] = error
        return failed

    def delete_version(self, key: str, etag: str) -> None:
        if not self.abilities.conditional_delete:
            super().delete_version(key, etag)
        with self._request("delete", key):
            stored = self._objects.get(key)
            if stored is not None and stored.info.etag != etag:
                raise Replaced(f"{self.name}: {key!r} is another version now", key=key)
            self._objects.pop(key, None)
            self._sorted = None

    def page(
        self,
        prefix: str = "",
        delimiter: str = "",
        *,
        after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> Page:
        with self._request("page", prefix) as fault:
            limit = min(limit, self.abilities.limits.page_max)
            if fault is not None and fault.short is not None:
                limit = min(limit, fault.short)
            keys = self._keys(prefix, delimiter, grouping.start_of(after, token))
            found = grouping.cut(keys, prefix, delimiter, limit, token)
            objects = [replace(self._objects[key].info, metadata=None) for key in found.keys]
            return Page(objects, found.prefixes, found.token)

    def begin_upload(self, key: str, metadata: Mapping[str, str] = NO_METADATA) -> str:
        with self._request("begin_upload", key):
            self.refuse_what_it_cannot_hold(key, 0, metadata)
            upload = uuid.uuid4().hex
            pending = PendingUpload(key, upload, self._now_ns())
            self._uploads[upload] = _Upload(pending, dict(metadata))
            return upload

    def put_part(self, key: str, upload: str, number: int, body: Body) -> str:
        with self._request("put_part", key):
            data = bytes(body)
            self._upload(key, upload).parts[number] = data
            return _md5(data)

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
        with self._request("copy_part", key):
            if not self.abilities.copies_parts:
                raise Unsupported(f"{self.name}: cannot copy parts", key=key)
            found = self._stored(source)
            if etag is not None and found.info.etag != etag:
                raise Replaced(f"{self.name}: {source!r} is another version now", key=source)
            data = found.data[start:stop]
            self._upload(key, upload).parts[number] = data
            return _md5(data)

    def commit_upload(
        self, key: str, upload: str, parts: Sequence[tuple[int, str]], *, if_absent: bool = False
    ) -> ObjectInfo:
        with self._request("commit_upload", key):
            begun = self._upload(key, upload)
            blocks = [self._part(begun, number, etag) for number, etag in parts]
            self._refuse_parts(key, [len(block) for block in blocks[:-1]])
            digests = b"".join(bytes.fromhex(etag) for _, etag in parts)
            etag = f"{_md5(digests)}-{len(parts)}"
            data = b"".join(blocks)
            info = self._store(key, data, etag, begun.metadata, if_absent=if_absent)
            del self._uploads[upload]
            return info

    def abort_upload(self, key: str, upload: str) -> None:
        with self._request("abort_upload", key):
            self._uploads.pop(upload, None)

    def uploads(self, prefix: str = "") -> Sequence[PendingUpload]:
        with self._request("uploads", prefix):
            pending = [upload.pending for upload in self._uploads.values()]
            return [one for one in pending if one.key.startswith(prefix)]

    def close(self) -> None:
        self.is_closed = True

    @contextmanager
    def _request(self, verb: str, key: str) -> Iterator[Fault | None]:
        """Note the request and let the fault that is due happen, before or behind it."""
        with self._lock:
            self.requests.append((verb, key))
            fault = self._due(verb, key)
        if fault is not None:
            if fault.gate is not None:
                fault.gate.wait()
            time.sleep(fault.delay)
            if fault.error is not None:
                raise fault.error()
        with self._lock:
            yield fault
        if fault is not None and fault.is_lost:
            raise Unreachable(f"{self.name}: {verb} {key!r}: the answer was lost", key=key)

    def _due(self, verb: str, key: str) -> Fault | None:
        for fault in self.faults:
            if not fnmatchcase(verb, fault.verb) or not fnmatchcase(key, fault.key):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.times is None:
                return fault
            if fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def _stored(self, key: str) -> _Stored:
        if key not in self._objects:
            raise NotFound(f"{self.name}: no object {key!r}", key=key)
        return self._objects[key]

    def _store(
        self,
        key: str,
        data: bytes,
        etag: str,
        metadata: Mapping[str, str],
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        self.refuse_what_it_cannot_hold(key, len(data), metadata, if_absent=if_absent)
        if if_absent and key in self._objects:
            raise AlreadyThere(f"{self.name}: {key!r} is already there", key=key)
        lower = {name.lower(): text for name, text in metadata.items()}
        info = ObjectInfo(key, len(data), self._now_ns(), etag, lower)
        self._objects[key] = _Stored(info, data)
        self._sorted = None
        return info

    def _keys(self, prefix: str, delimiter: str, after: str) -> Iterator[str]:
        """Keys below `prefix` behind `after`, in the order of listing; one for a common prefix."""
        if self._sorted is None:
            self._sorted = sorted((self._order(key), key) for key in self._objects)
        start = max(after, prefix, key=self._order) if prefix else after
        at = bisect_right(self._sorted, (self._order(start), ""))
        while at < len(self._sorted):
            key = self._sorted[at][1]
            if not key.startswith(prefix):
                break  # in either order, keys with one prefix follow one another
            if key != after:
                yield key
            stop = key.find(delimiter, len(prefix)) if delimiter else -1
            if stop >= 0:
                last = key[: stop + len(delimiter)] + grouping.LAST
                at = bisect_right(self._sorted, (self._order(last), ""))
            else:
                at += 1

    def _order(self, key: str) -> Any:
        return key if self.abilities.lists_in_order else key.split("/")

    def _upload(self, key: str, upload: str) -> _Upload:
        found = self._uploads.get(upload)
        if found is None or found.pending.key != key:
            raise NotFound(f"{self.name}: no upload {upload!r} of {key!r}", key=key)
        return found

    def _part(self, upload: _Upload, number: int, etag: str) -> bytes:
        data = upload.parts.get(number)
        if data is None or _md5(data) != etag:
            key = upload.pending.key
            raise StoreError(f"{self.name}: {key!r}: no part {number} with etag {etag}", key=key)
        return data

    def _refuse_parts(self, key: str, sizes: Sequence[int]) -> None:
        """Refuse an upload whose parts, all but the last, have these sizes, as a store would."""
        limits = self.abilities.limits
        if any(size < limits.part_min for size in sizes):
            raise StoreError(f"{self.name}: {key!r}: a part is too small", key=key)
        if limits.equal_parts and len(set(sizes)) > 1:
            raise StoreError(f"{self.name}: {key!r}: parts differ in size", key=key)

    def _now_ns(self) -> int:
        self._time_ns = max(self._time_ns + 1, time.time_ns())
        return self._time_ns


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def open_url(config: RepositoryConfig, credentials: Credentials | None) -> tuple[Provider, str]:
    """Return the store that `memory:NAME` (or `memory://NAME/prefix`) means in this process."""
    name, _, prefix = config.url.partition(":")[2].removeprefix("//").partition("/")
    provider = _named.setdefault(name, Memory(f"memory:{name}"))
    return provider, f"{prefix.strip('/')}/" if prefix.strip("/") else ""

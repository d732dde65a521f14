"""The pending uploads of a store that keeps no list of them: each has a small object of its own.

The object holds what the upload was begun with, so that any process can end it; an upload exists
as long as its object does. They lie at the bucket's root, below a name that no other key may begin
with, and no listing shows them.
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import msgspec

from backgate.gateway.errors import NotFound, StoreError
from backgate.gateway.provider import (
    NO_METADATA,
    KeyRules,
    ObjectInfo,
    Page,
    PendingUpload,
)
from backgate.gateway.providers.checksums import Outgoing
from backgate.gateway.units import MIB

PLACE = ".backgate-uploads"  # first component of all keys that are ours
RECORD_MAX = MIB  # bytes; a key and its metadata are some kilobytes
UPLOADS_MAX = 100_000  # pending at once; more is an endless answer, or a lost cause

_NAME = re.compile("[0-9a-f]{32}")


class Objects(Protocol):
    """The verbs of a store that are needed here; they know no key that is ours."""

    name: str

    def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes: ...

    def put(
        self, key: str, outgoing: Outgoing, metadata: Mapping[str, str], *, if_absent: bool
    ) -> ObjectInfo: ...

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]: ...

    def page(
        self, prefix: str, delimiter: str, *, after: str, token: str | None, limit: int
    ) -> Page: ...


class Begun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an upload was begun with."""

    key: str
    metadata: dict[str, str]  # as requests carry it


class PendingUploads:
    """The uploads of one bucket; any number of threads and processes may use them."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._known: set[str] = set()  # that were there when this process last heard of them

    def begin(self, key: str, metadata: Mapping[str, str]) -> str:
        """Return the name of a new upload; `metadata` is what its object will be stored with."""
        upload = uuid.uuid4().hex
        record = msgspec.json.encode(Begun(key, dict(metadata)))
        self._objects.put(_key(upload), Outgoing(record), NO_METADATA, if_absent=False)
        self._known.add(upload)
        return upload

    def begun(self, key: str, upload: str) -> Begun:
        """Ask the store what `upload` was begun with; `NotFound` when it is gone."""
        if not _NAME.fullmatch(upload):
            raise self._gone(key)
        try:
            text = self._objects.get(_key(upload), 0, RECORD_MAX)
        except NotFound as error:
            if error.key is None:
                raise  # the bucket is missing
            raise self._gone(key) from error
        try:
            found = msgspec.json.decode(text, type=Begun)
        except msgspec.DecodeError as error:
            name = self._objects.name
            raise StoreError(f"{name}: {_key(upload)!r}: not ours: {error}", key=key) from error
        if found.key != key:
            raise self._gone(key)
        self._known.add(upload)
        return found

    def require(self, key: str, upload: str) -> None:
        """Return when `upload` is there, as far as this process knows; else `NotFound`."""
        if upload not in self._known:
            self.begun(key, upload)

    def end(self, key: str, upload: str) -> None:
        """Forget `upload`, and delete its parts and its object, in this order."""
        self._known.discard(upload)
        if not _NAME.fullmatch(upload):
            return
        while parts := self._parts(upload):
            self._delete(parts)
        self._delete([_key(upload)])

    def pending(self, prefix: str) -> Sequence[PendingUpload]:
        """Return the uploads of keys below `prefix`."""
        found: list[PendingUpload] = []
        token: str | None = None
        while True:
            page = self._objects.page(f"{PLACE}/", "/", after="", token=token, limit=1000)
            found += [one for info in page.objects if (one := self._pending(info, prefix))]
            if len(found) > UPLOADS_MAX:
                raise StoreError(f"{self._objects.name}: more than {UPLOADS_MAX} pending uploads")
            token = page.token
            if token is None:
                return found

    def _pending(self, info: ObjectInfo, prefix: str) -> PendingUpload | None:
        upload = info.key.rpartition("/")[2]
        try:
            text = self._objects.get(info.key, 0, RECORD_MAX)
            key = msgspec.json.decode(text, type=Begun).key
        except (NotFound, msgspec.DecodeError):  # ended meanwhile, or not ours
            return None
        return PendingUpload(key, upload, info.mtime_ns) if key.startswith(prefix) else None

    def _parts(self, upload: str) -> list[str]:
        page = self._objects.page(part_key(upload, ""), "", after="", token=None, limit=100)
        return [info.key for info in page.objects]

    def _delete(self, keys: list[str]) -> None:
        for error in self._objects.delete(keys).values():
            raise error

    def _gone(self, key: str) -> NotFound:
        return NotFound(f"{self._objects.name}: {key!r}: no such upload", key=key)


def part_key(upload: str, name: object) -> str:
    """Return where a part of `upload` lies in a store that keeps parts as objects."""
    return f"{PLACE}/{upload}.parts/{name}"


def reserving(rules: KeyRules) -> KeyRules:
    """Return `rules` with the place of the uploads kept from everybody else."""
    return replace(rules, reserved=(*rules.reserved, PLACE))


def without_ours(page: Page) -> Page:
    """Return `page` without what belongs to uploads."""
    ours = f"{PLACE}/"
    objects = [info for info in page.objects if not info.key.startswith(ours)]
    return Page(objects, [one for one in page.prefixes if not one.startswith(ours)], page.token)


def _key(upload: str) -> str:
    return f"{PLACE}/{upload}"

"""The contract of a provider: one object-store SDK, as plain blocking Python.

A provider is called from many threads at once and never meets trio. It neither retries nor waits:
`store.ObjectStore` adds threads, deadlines, retry, pacing and counters, once, for all. Its only
duties are
to make the request, to bound it by a socket time-out, and to translate the SDK's errors into
`backgate.gateway.errors`: `NotFound`, `Refused`, `Unreachable` (retried), `NotAsSent`
(retried), `Unsupported`,
`AlreadyThere`,
`Replaced`, `StoreFull`, `InvalidKey`, and `StoreError` for anything else.

`testing/provider_contract.py` is the suite that every provider instantiates.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

from msgspec import Struct

from backgate.gateway.errors import InvalidKey, StoreError, Unsupported
from backgate.gateway.units import GIB, MIB, TIB

Body: TypeAlias = bytes | bytearray | memoryview

NO_METADATA: Mapping[str, str] = MappingProxyType({})


class ObjectInfo(Struct, frozen=True):
    """What is known of one version of one object."""

    key: str
    size: int  # bytes
    mtime_ns: int  # when the store took it, nanoseconds since 1970
    etag: str  # names this version, without quotes; opaque
    metadata: Mapping[str, str] | None = (
        None  # user metadata, lower-case names; None: a listing does not say
    )


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to a listing: what lies in a key interval, and where to go on."""

    objects: Sequence[ObjectInfo]
    prefixes: Sequence[str]  # common prefixes, each with its trailing delimiter
    token: str | None  # for the following page; None: this was the last


class PendingUpload(Struct, frozen=True):
    """A multipart upload that was begun and neither committed nor aborted."""

    key: str
    upload: str
    begun_ns: int  # nanoseconds since 1970


@dataclass(frozen=True, slots=True)
class Limits:
    """What a store takes; defaults are those of S3."""

    part_min: int = 5 * MIB  # bytes; every part but the last
    part_max: int = 5 * GIB  # bytes
    part_count: int = 10_000
    equal_parts: bool = False  # all parts of an upload but the last have one size
    put_max: int = 5 * GIB  # bytes in one put
    object_max: int = 5 * TIB  # bytes
    copy_max: int = 5 * GIB  # bytes in one server-side copy
    key_max: int = 1024  # bytes of UTF-8
    page_max: int = 1000  # keys in one page of a listing
    delete_max: int = 1000  # keys in one delete
    metadata_max: int = 2048  # bytes of user metadata, names and values


@dataclass(frozen=True, slots=True)
class Listing:
    """How a store lists, beyond the order of its pages."""

    is_slow: bool = False  # pages of the full size are known to time out: begin with small ones
    order_is_sure: bool = True  # `lists_in_order` is known of this very store, not only claimed
    delimiter_scans: bool = False  # a level costs as much as all that lies below it
    grace: float = 0.0  # seconds for which a listing may not show what was written before it
    price: float | None = None  # US dollars for 1000 requests; None: not known, or nobody charges


@dataclass(frozen=True, slots=True)
class Rates:
    """How many requests a store takes from one client; None: no limit is known."""

    put: float | None = None  # per second; copies and deletes count as puts
    get: float | None = None  # per second; heads count as gets
    list: float | None = None  # per second


@dataclass(frozen=True, slots=True)
class KeyRules:
    """Which keys a store keeps and lists as they are; defaults are those of S3: all of them."""

    component_max: int | None = None  # bytes between two slashes
    component_count: int | None = None
    dot_components: bool = True  # `.` and `..` between slashes
    sole_dots: bool = True  # `.` and `..` as whole keys
    final_dots: bool = True  # components that end in `.`
    empty_components: bool = True  # `a//b`, and a leading slash
    refused: str = ""  # characters
    reserved: tuple[str, ...] = ()  # first components that the store keeps for itself

    def fault(self, key: str) -> str | None:
        """Return why no object can lie under `key`; None when one can."""
        parts = key.removesuffix("/").split("/")
        if self.component_max is not None:
            longest = max(len(part.encode("utf-8", "surrogatepass")) for part in parts)
            if longest > self.component_max:
                return f"a component is longer than {self.component_max} bytes"
        if self.component_count is not None and len(parts) > self.component_count:
            return f"it has more than {self.component_count} components"
        if not self.dot_components and not {".", ".."}.isdisjoint(parts):
            return "a component is '.' or '..'"
        if not self.sole_dots and key in (".", ".."):
            return "it is '.' or '..'"
        if not self.final_dots and any(part.endswith(".") for part in parts):
            return "a component ends in '.'"
        if not self.empty_components and "" in parts:
            return "a component is empty"
        if not set(self.refused).isdisjoint(key):
            return f"it contains one of {self.refused!r}"
        if parts[0] in self.reserved:
            return f"the store keeps {parts[0]!r} for itself"
        return None


@dataclass(frozen=True, slots=True)
class Abilities:
    """How a store behaves where stores differ."""

    lists_in_order: bool = True  # pages come in byte order of the keys
    conditional_put: bool = True  # `if_absent` is enforced; where not, it is `Unsupported`
    why_unconditional: str = "the store ignores conditions"  # said where it is not
    conditional_delete: bool = False  # `delete_version` exists; where not, it is `Unsupported`
    copies_objects: bool = True  # `copy` exists; where not, it is `Unsupported`
    copies_parts: bool = True  # `copy_part` exists
    forgets_prefixes: bool = True  # a common prefix is gone with the last key below it
    markers_are_objects: bool = True  # else `name/` holds no bytes, no metadata, and `head` finds
    # it below any prefix: the store keeps its objects in directories
    etags_are_md5: bool = True  # an etag is S3's: an MD5, or that of the parts' MD5s
    limits: Limits = field(default_factory=Limits)
    keys: KeyRules = field(default_factory=KeyRules)
    listing: Listing = field(default_factory=Listing)
    rates: Rates = field(default_factory=Rates)

    def fault(self, key: str, size: int = 0) -> str | None:
        """Return why an object of `size` bytes cannot be stored under `key`; None when it can."""
        try:
            length = len(key.encode())
        except UnicodeEncodeError:
            return "it is not UTF-8"
        if not 0 < length <= self.limits.key_max:
            return f"a key has 1 to {self.limits.key_max} bytes, this one {length}"
        if size > self.limits.object_max:
            return f"an object has at most {self.limits.object_max} bytes"
        if size and key.endswith("/") and not self.markers_are_objects:
            return "a key that ends in '/' cannot hold bytes"
        return self.keys.fault(key)


class Provider(ABC):
    """One bucket (or container, or directory) and the requests it answers.

    Keys are `str`, exact, and relative to the bucket: a prefix from the repository's URL is the
    caller's.
    """

    name: str  # what messages call this store: "s3://acme-backups"
    abilities: Abilities
    clock_skew: float | None = None  # seconds that the store's clock was ahead in its last answer
    checksums: Sequence[str] = ()  # that can go with a body; the one that does stands first

    @property
    def is_instant(self) -> bool:
        """True when calls answer from memory at this moment, so that they need no thread."""
        return False

    @abstractmethod
    def check(self) -> None:
        """Return when the bucket exists and the credentials can see it.

        Raises `NotFound` for a missing bucket, `Refused` for wrong credentials, `Unreachable`.
        """

    @abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """Return what the store says of `key`, with its user metadata; `NotFound` when it is
        absent.
        """

    @abstractmethod
    def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        """Return the bytes `[start, stop)`, fewer only where the object ends.

        With `etag`, raises `Replaced` when the object is another version. A body that comes back
        shorter than the store announced is `Unreachable`.
        """

    @abstractmethod
    def put(
        self,
        key: str,
        body: Body,
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        """Store `body` whole, with an integrity check, and return what was stored.

        With `if_absent`, raises `AlreadyThere` when the key exists.
        """

    @abstractmethod
    def copy(
        self, source: str, target: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """Copy on the store's side, with `source`'s metadata unless `metadata` replaces it.

        Raises `Unsupported` where it cannot.
        """

    @abstractmethod
    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        """Delete up to `limits.delete_max` keys; an absent key counts as deleted.

        Returns the keys that could not be deleted, each with its error.
        """

    @abstractmethod
    def page(
        self,
        prefix: str = "",
        delimiter: str = "",
        *,
        after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> Page:
        """Return up to `limit` keys (and common prefixes) below `prefix`.

        `after` starts behind that key (first page only), `token` goes on from an earlier page.
        Where a store does not list in order, that may tell of keys before `after` too.
        """

    @abstractmethod
    def begin_upload(self, key: str, metadata: Mapping[str, str] = NO_METADATA) -> str:
        """Begin a multipart upload and return its id."""

    @abstractmethod
    def put_part(self, key: str, upload: str, number: int, body: Body) -> str:
        """Store part `number` (from 1) and return its etag; a number sent again replaces the
        part.

        Behind a blank may follow what else `commit_upload` has to know of the part.
        """

    @abstractmethod
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
        """Make part `number` of `[start, stop)` of the object `source`; `Unsupported` where it
        cannot.

        With `etag`, raises `Replaced` when `source` is another version.
        """

    @abstractmethod
    def commit_upload(
        self, key: str, upload: str, parts: Sequence[tuple[int, str]], *, if_absent: bool = False
    ) -> ObjectInfo:
        """Make the object of `parts` (number, etag), ascending; `NotFound` when the upload is
        gone.
        """

    @abstractmethod
    def abort_upload(self, key: str, upload: str) -> None:
        """Give up an upload and free its parts; one that is gone counts as aborted."""

    @abstractmethod
    def uploads(self, prefix: str = "") -> Sequence[PendingUpload]:
        """Return the uploads below `prefix` that are still pending."""

    @abstractmethod
    def close(self) -> None:
        """Free sockets and threads; nothing is asked of this provider afterwards."""

    def putting(
        self,
        key: str,
        body: Body,
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        if_absent: bool = False,
    ) -> Callable[[], ObjectInfo]:
        """Return `put` as a call that is made until it succeeds.

        A provider that works something out of `body` does so once for all of them.
        """
        return partial(self.put, key, body, metadata, if_absent=if_absent)

    def putting_part(self, key: str, upload: str, number: int, body: Body) -> Callable[[], str]:
        """Return `put_part` as a call that is made until it succeeds; as `putting`."""
        return partial(self.put_part, key, upload, number, body)

    def delete_version(self, key: str, etag: str) -> None:
        """Delete `key` if it is the version `etag`, in one step; an absent key counts as deleted.

        Raises `Replaced` when it is another version, and `Unsupported` where the store looks at no
        conditions. Versions of one content may have one etag (S3).
        """
        raise Unsupported(f"{self.name}: delete {key!r}: the store ignores conditions", key=key)

    def put_damaged(self, key: str, checksum: str) -> None:
        """Store a body with the `checksum` of another, one of `checksums`: for validation.

        Raises `NotAsSent` where the store notices.
        """
        raise Unsupported(f"{self.name}: put {key!r}: it is sent without a {checksum}", key=key)

    def renew(self, credentials: Any) -> None:  # noqa: B027
        """Ask with other `credentials` from now on; they are of the kind that opened the store.

        A provider whose credentials cannot change does nothing.
        """

    def unguarded(self) -> "Provider":
        """Return this store, asked even where `abilities` would have it refused: for validation.

        A store whose abilities are facts about itself, and not what somebody wrote of it, is its
        own answer. Whoever asked closes what is returned.
        """
        return self

    def learnt(self) -> Mapping[str, Any]:
        """Return what the store has shown since it was opened, as keys of a profile."""
        return {}

    def refuse_what_it_cannot_hold(
        self,
        key: str,
        size: int = 0,
        metadata: Mapping[str, str] | None = None,
        *,
        if_absent: bool = False,
    ) -> None:
        """What an implementation calls before it writes, so that `abilities` are the truth.

        Raises `InvalidKey`, `Unsupported` for a condition that would be ignored, and `StoreError`
        for too much metadata.
        """
        reason = self.abilities.fault(key, size)
        if reason is not None:
            raise InvalidKey(f"{self.name}: cannot hold {key!r}: {reason}", key=key)
        if if_absent and not self.abilities.conditional_put:
            why = self.abilities.why_unconditional
            raise Unsupported(f"{self.name}: put {key!r}: {why}", key=key)
        texts = [text for pair in (metadata or {}).items() for text in pair]
        length = sum(len(text.encode("utf-8", "surrogateescape")) for text in texts)
        if length > self.abilities.limits.metadata_max:
            limit = self.abilities.limits.metadata_max
            raise StoreError(
                f"{self.name}: put {key!r}: more than {limit} bytes of metadata", key=key
            )

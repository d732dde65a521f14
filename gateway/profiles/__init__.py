"""What is known of each provider, as data: one TOML file, typed and checked when it is read.

A package adds a profile by an entry point of the group `backgate.profiles`: the provider's name is
its name, and it loads a path (or a package resource) of such a file.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.metadata import EntryPoint
from importlib.resources import files
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from backgate.gateway.errors import ConfigError
from backgate.gateway.plugins import plugins
from backgate.gateway.provider import Abilities, KeyRules, Limits, Listing, Rates
from backgate.gateway.units import size_from_text

GROUP = "backgate.profiles"
UNKNOWN_GRACE = 60.0  # seconds; longer than a store that is not down takes to agree with itself
UNSPEAKABLE = "".join(map(chr, range(32))) + "\ufffe\uffff"  # XML has none of them, or alters them
UNKNOWN = "generic"  # the profile of an endpoint of which nothing is known
_RESOURCES = {
    file.name.removesuffix(".toml"): file
    for file in files(__name__).iterdir()
    if file.name.endswith(".toml")
}

Confidence: TypeAlias = Literal["source", "documentation", "test", "third party", "unconfirmed"]
Condition: TypeAlias = Literal["enforced", "ignored", "rejected", "unknown"]
T = TypeVar("T")

_NOT_TRIED = {"part_min", "part_max", "part_count", "put_max", "object_max", "copy_max"}  # limits
# that a validation keeps to: to exceed them would cost more than it tells
_WHY_UNCONDITIONAL = {
    "ignored": "the store ignores conditions",
    "rejected": "the store rejects conditions",
    "unknown": "whether the store enforces conditions is not known: `backgate validate` finds out",
}


class Fact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fact, the keys of the profile that it supports, and who says so."""

    about: list[str]  # keys of the profile, those in tables as "limits.part_max" or "limits"
    fact: str
    source: str  # an address, or what was tried
    confidence: Confidence


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the store charges, in US dollars before tax; None where it is not known."""

    checked: str  # the day on which it was read, as 2026-03-31
    list_class: str = "unknown"  # what the provider's price list calls a LIST request
    list: float | None = None  # for 1000 requests
    list_free: int = 0  # requests of that class that cost nothing in a month
    storage: float | None = None  # for 1 GB in a month
    egress: float | None = None  # for 1 GB


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to speak to one provider, and what to expect of it.

    What a file leaves out is the safe choice. The comment of each key says who acts upon it.
    """

    title: str
    tier: Literal[1, 2, 3] | None = None  # None: depends on the installation
    summary: str = ""  # what an administrator should know before choosing it

    scheme: Literal["s3", "az", "gs"] = "s3"  # of the URLs that it is for

    # Where it is: endpoint.py
    endpoint: str | None = None  # with `{region}`, `{account}`; None: it must be configured
    other_endpoints: list[str] = []  # that it answers at too, such as those of a private network
    region: str | None = None  # unless configured; None: it must be
    regions: list[str] = []  # that there were when this was written; none: any text is right
    signing_region: str | None = None  # what requests are signed for; None: the region
    addressing: Literal["path", "virtual"] = "path"
    https_only: bool = False

    # How requests are made: providers/s3*.py
    upload_checksum: Literal["crc32c", "sha256", "md5"] = "md5"  # what the store checks of a body:
    # a CRC-32C that it also tells, the SHA-256 of the signature, or a Content-MD5, which all check
    payload_hash: Literal["checked", "ignored", "unknown"] = "unknown"  # the SHA-256 of a body in
    # the signature: over http one is worked out for each body, unless the store looks at none
    etag_md5: bool = False  # the etag of what was sent by one request is its MD5, and is compared
    trailing_checksums: Literal["accepted", "rejected", "unknown"] = "unknown"  # we send none
    delete_integrity: Literal["crc", "md5", "single"] = "md5"  # of DeleteObjects; single: no batch
    expect_100: bool = False  # ask before sending a body: where a refusal costs more than to wait
    retry_codes: list[str] = []  # errors that will pass, beside those that S3 defines
    list_version: Literal[1, 2] = 2
    list_url_encode: bool = True  # `encoding-type=url` is understood; else XML limits the keys
    list_start_after: bool = True  # `start-after` is understood; where not, version 1 is asked

    # What a listing tells: the metadata cache's
    lists_in_order: bool = False
    list_slow: bool = False  # begins with small pages
    list_delimiter_scans: bool = False  # a directory is listed flat
    list_consistency: Literal["strong", "eventual", "unknown"] = "unknown"
    list_grace: float | None = None  # seconds for which a listing may not show what was written
    # before; None: none at all where it is strongly consistent, else a minute
    forgets_prefixes: bool = False
    markers_are_objects: bool = False
    rate: dict[str, float] = {}  # those of `Rates`

    # What can be written: store.py, upload.py, renames.py
    conditional_put: Condition = "unknown"
    conditional_delete: Condition = "unknown"  # of the version that was looked at: store.py
    copies_objects: bool = True
    copies_parts: bool = True
    etag_multipart_md5: bool = True
    limits: dict[
        str, bool | int | str
    ] = {}  # those of `Limits`; sizes may be texts such as "5 GiB"
    keys: dict[str, Any] = {}  # those of `KeyRules`

    # What it costs and offers: `backgate providers`, `backgate validate`
    minimum_days: int = 0  # for which a deleted object is still charged
    minimum_size: int = 0  # bytes for which a smaller object is charged
    object_lock: bool | None = None
    versioning: Literal["no", "yes", "always"] | None = None
    price: Price | None = None
    facts: list[Fact] = []

    def presuming_all(self) -> "Profile":
        """Return the same store with no ability denied: what a validation asks it by."""
        kept = {key: value for key, value in self.limits.items() if key in _NOT_TRIED}
        return msgspec.structs.replace(
            self,
            delete_integrity="md5" if self.delete_integrity == "single" else self.delete_integrity,
            list_version=2,
            list_start_after=True,
            conditional_put="enforced",
            conditional_delete="enforced",
            copies_objects=True,
            copies_parts=True,
            markers_are_objects=True,
            limits=kept,
            keys={},
        )

    def abilities(self) -> Abilities:
        """Return the same as a provider declares it."""
        return Abilities(
            lists_in_order=self.lists_in_order,
            conditional_put=self.conditional_put == "enforced",
            why_unconditional=_WHY_UNCONDITIONAL.get(self.conditional_put, ""),
            conditional_delete=self.conditional_delete == "enforced",
            copies_objects=self.copies_objects,
            copies_parts=self.copies_parts,
            forgets_prefixes=self.forgets_prefixes,
            markers_are_objects=self.markers_are_objects,
            etags_are_md5=self.etag_multipart_md5,
            limits=_dataclass(Limits, _sizes(self.limits), f"{self.title}: limits"),
            keys=self._key_rules(),
            listing=Listing(
                is_slow=self.list_slow,
                order_is_sure=self.endpoint is not None,
                delimiter_scans=self.list_delimiter_scans,
                grace=self._grace(),
                price=None if self.price is None else self.price.list,
            ),
            rates=_dataclass(Rates, self.rate, f"{self.title}: rate"),
        )

    def _key_rules(self) -> KeyRules:
        rules = _dataclass(KeyRules, self.keys, f"{self.title}: keys")
        if self.list_url_encode:
            return rules
        return replace(rules, refused=rules.refused + UNSPEAKABLE)

    def _grace(self) -> float:
        if self.list_grace is not None:
            return self.list_grace
        return 0.0 if self.list_consistency == "strong" else UNKNOWN_GRACE


def profile(name: str, origin: str = "") -> Profile:
    """Return the profile `name`; `origin` begins the message when there is none.

    Raises `ConfigError`, also for a profile whose file is wrong.
    """
    known = profiles()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1) or [one for one in known if name in one]
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
        start = f"{origin}: provider: " if origin else ""
        raise ConfigError(f"{start}no profile {name!r} — {hint}")
    return parse(_text(name, known[name]), f"profile {name}")


def profiles() -> dict[str, EntryPoint]:
    """Return every profile and where it comes from; `ConfigError` when two have one name."""
    return plugins(GROUP, dict.fromkeys(_RESOURCES, f"{__name__}:built_in"))


def parse(text: str, where: str) -> Profile:
    """Return the profile that the TOML `text` is; `ConfigError` names `where` and the key."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: {error}") from error
    return from_table(table, where)


def from_table(table: Mapping[str, Any], where: str) -> Profile:
    """Return the profile that `table` describes; `ConfigError` names `where` and the key."""
    try:
        found = msgspec.convert(table, Profile)
        found.abilities()
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error
    return found


def built_in(name: str) -> str:
    """Return the text of a profile that comes with Backgate."""
    return _RESOURCES[name].read_text()


def _text(name: str, plugin: EntryPoint) -> str:
    resource = plugin.load()
    return built_in(name) if resource is built_in else str(resource.read_text())


def _sizes(table: Mapping[str, bool | int | str]) -> dict[str, int]:
    return {
        key: size_from_text(value) if isinstance(value, str) else value
        for key, value in table.items()
    }


def _dataclass(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise msgspec.ValidationError(f"{where}: unknown key {key!r}")
    return msgspec.convert(table, kind)

"""What is known of each provider, as data: one TOML file, typed and checked when it is read.

A package adds a profile by an entry point of the group `backgate.profiles`: the provider's name is
its name, and it loads a path (or a package resource) of such a file.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import EntryPoint
from importlib.resources import files
from typing import Any, Literal, TypeVar

import msgspec

from backgate.gateway.errors import ConfigError
from backgate.gateway.plugins import plugins
from backgate.gateway.provider import Abilities, KeyRules, Limits

GROUP = "backgate.profiles"
UNKNOWN = "generic"  # the profile of an endpoint of which nothing is known
_RESOURCES = {
    file.name.removesuffix(".toml"): file
    for file in files(__name__).iterdir()
    if file.name.endswith(".toml")
}

T = TypeVar("T")


class Note(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fact, what it is about, and who says so."""

    about: str
    fact: str
    source: str


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to speak to one provider, and what to expect of it."""

    title: str
    tier: Literal[1, 2, 3] | None = None  # None: depends on the installation
    endpoint: str | None = None  # with `{region}`; None: it must be configured
    region: str = "us-east-1"  # unless configured
    addressing: Literal["path", "virtual"] = "path"
    delete_integrity: Literal["crc", "md5", "single"] = (
        "md5"  # of DeleteObjects; single: no batches
    )
    lists_in_order: bool = False
    conditional_put: bool = False
    copies_parts: bool = True
    forgets_prefixes: bool = False
    markers_are_objects: bool = False
    limits: dict[str, int] = {}
    keys: dict[str, Any] = {}
    notes: list[Note] = []

    def abilities(self) -> Abilities:
        """Return the same as a provider declares it."""
        return Abilities(
            lists_in_order=self.lists_in_order,
            conditional_put=self.conditional_put,
            copies_parts=self.copies_parts,
            forgets_prefixes=self.forgets_prefixes,
            markers_are_objects=self.markers_are_objects,
            limits=_dataclass(Limits, self.limits, f"{self.title}: limits"),
            keys=_dataclass(KeyRules, self.keys, f"{self.title}: keys"),
        )


def profile(name: str, origin: str = "") -> Profile:
    """Return the profile `name`; `origin` begins the message when there is none.

    Raises `ConfigError`, also for a profile whose file is wrong.
    """
    known = profiles()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
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
        found = msgspec.convert(tomllib.loads(text), Profile)
        found.abilities()
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{where}: {error}") from error
    return found


def built_in(name: str) -> str:
    """Return the text of a profile that comes with Backgate."""
    return _RESOURCES[name].read_text()


def _text(name: str, plugin: EntryPoint) -> str:
    resource = plugin.load()
    return built_in(name) if resource is built_in else str(resource.read_text())


def _dataclass(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise msgspec.ValidationError(f"{where}: unknown key {key!r}")
    return msgspec.convert(table, kind)

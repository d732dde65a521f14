"""What an administrator may configure, typed and checked, and where it is read from.

Every message names the file, the table and the key, and says what would be right: a configuration
is mended by people who meet it at night.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

import msgspec

from backgate.gateway.errors import ConfigError
from backgate.gateway.profiles import Profile, from_table, profiles
from backgate.gateway.units import GIB, duration_from_text, size_from_text

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # no ":" and no "/": TARGETs are cut there
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)")
REFERENCES = "env:NAME, file:/PATH or systemd:NAME"
CREDENTIALS = "env, profile:NAME, file:/PATH or systemd:NAME"
NOT_WRITTEN = {"name", "origin", "profile"}  # what we add to a repository's table
COMMAND_LINE = "command line"  # the origin of a repository that is in no file
FILE_MAX = 1024 * 1024  # bytes; a longer file is not a configuration

Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, description='a size such as "10 GiB"')]
Duration: TypeAlias = Annotated[float, msgspec.Meta(ge=0, description='a duration such as "1 h"')]
Url: TypeAlias = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^([A-Za-z][A-Za-z0-9+.-]*://.|/)",
        description='a URL such as "s3://bucket/prefix", or an absolute path',
    ),
]
HttpUrl: TypeAlias = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^https?://[^/@]+(/[^@]*)?$",
        description='a URL such as "https://s3.example.com", with no user or password in it',
    ),
]
Account: TypeAlias = Annotated[
    str,
    msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,63}$", description="letters, digits and '-'"),
]
AbsolutePath: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=r"^[/~]", description="an absolute path")
]
CredentialsReference: TypeAlias = Annotated[
    str,
    msgspec.Meta(pattern=r"^(env|profile:.+|file:[/~].*|systemd:[^/]+)$", description=CREDENTIALS),
]
DatabaseUrl: TypeAlias = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^postgres(ql)?://[^\s]*$",
        description='a URL such as "postgresql://user@db.example.com/backgate", with no password',
    ),
]
Kind: TypeAlias = Literal["repository", "mirror"]
SecretReference: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=r"^(env:.+|file:[/~].*|systemd:[^/]+)$", description=REFERENCES)
]


class RepositoryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[repository.NAME]` table."""

    name: str  # the table's name, or one made from the URL
    url: Url
    origin: str = COMMAND_LINE  # what messages call the place where this was written
    provider: str | None = None  # a profile's name
    profile: Profile | None = None  # where that is one of the same file
    region: str | None = None
    account: Account | None = None  # for providers whose addresses begin with it
    endpoint_url: HttpUrl | None = None
    credentials: CredentialsReference = "env"
    ca_bundle: AbsolutePath | None = None  # certificates to trust instead of the system's
    writers: Literal["exclusive", "shared"] = "exclusive"
    locks: Literal["store", "gateway"] = "store"  # who decides who has a new name, if not exclusive
    max_age: Duration = 60.0  # seconds that a listing counts as fresh with shared writers
    metadata: DatabaseUrl | None = None  # where the metadata index is; None: in a file
    metadata_password: SecretReference | None = None  # of that database
    secrets: dict[str, SecretReference] = {}
    patience: Duration = 3600.0  # seconds that repository/ waits out a fault
    backups_patience: Duration = 60.0  # seconds that backups/ waits out a fault
    durability: Literal["store", "journal"] = "store"
    kind: Kind = "repository"  # "mirror": all that a file system keeps
    block_cache: Size = 10 * GIB  # bytes on disk
    spool: Size = 4 * GIB  # bytes on disk that files being written may take
    writeback: bool = False  # the kernel merges small writes; only where one mount writes
    capacity: Size | None = None  # bytes that statfs shows
    staged: list[str] = []  # more patterns of temporary names
    attributes: Literal["listing", "stored"] = (
        "listing"  # "stored": ask the store for mode and times
    )


@dataclass(frozen=True, slots=True)
class Configuration:
    """All repositories that one file names."""

    path: Path | None = None  # None: there is no configuration file
    repositories: Mapping[str, RepositoryConfig] = field(default_factory=dict)
    providers: Mapping[str, Profile] = field(default_factory=dict)  # profiles that it describes

    def with_profile(self, config: RepositoryConfig) -> RepositoryConfig:
        """Return `config` with its provider's profile, where this file describes it."""
        found = self.providers.get(config.provider or "")
        return msgspec.structs.replace(config, profile=found)


def load_configuration(environment: Mapping[str, str] = os.environ) -> Configuration:
    """Return what `$BACKGATE_CONFIG`, else the user's, else the system's file says; empty if none.

    Raises `ConfigError` when the file cannot be read or anything in it is not understood.
    """
    path = configuration_path(environment)
    return Configuration() if path is None else read_configuration(path)


def configuration_path(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file that counts: the first of the three places that is there.

    Raises `ConfigError` when nobody could tell whether one is.
    """
    if chosen := environment.get("BACKGATE_CONFIG"):
        return Path(chosen)
    for path in usual_paths(environment):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        return path
    return None


def usual_paths(environment: Mapping[str, str] = os.environ) -> tuple[Path, Path]:
    """Return where a configuration file is looked for when `$BACKGATE_CONFIG` is not set."""
    home = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home, "backgate", "backgate.toml"), Path("/etc/backgate/backgate.toml")


def read_configuration(path: Path) -> Configuration:
    """Return what the file at `path` says; raises `ConfigError`."""
    tables = _parse(path)
    _refuse_unknown(tables, {"repository", "provider"}, f"{path}: unknown table")
    described = {
        name: _profile(name, table, origin)
        for name, table, origin in _named_tables(tables, "provider", path)
    }
    found = {
        name: repository_config(name, table, origin)
        for name, table, origin in _named_tables(tables, "repository", path)
    }
    configuration = Configuration(path, providers=described)
    repositories = {name: configuration.with_profile(one) for name, one in found.items()}
    return replace(configuration, repositories=repositories)


def repository_config(name: str, table: Mapping[str, Any], origin: str) -> RepositoryConfig:
    """Return the configuration that `table` describes; `origin` begins every message.

    Sizes and durations may be numbers or texts with a unit. Raises `ConfigError`.
    """
    kinds = _kinds()
    _refuse_unknown(table, kinds.keys(), f"{origin}: unknown key")
    if "url" not in table:
        raise ConfigError(f'{origin}: url is missing: write url = "s3://bucket/prefix" or a path')
    values = {key: _value(f"{origin}: {key}", kinds[key], table[key]) for key in table}
    _refuse_secret_in_url(values["url"], origin)
    _refuse_password_of_database(values.get("metadata"), origin)
    return RepositoryConfig(name=name, origin=origin, **values)


def _parse(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(FILE_MAX + 1)
        if len(content) > FILE_MAX:
            raise ConfigError(f"{path}: longer than {FILE_MAX} bytes: not a configuration")
        return tomllib.loads(content.decode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def _named_tables(
    tables: Mapping[str, Any], kind: str, path: Path
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Each `[kind.NAME]`: its name, what it says, and how messages call it."""
    for name, table in _table(tables.get(kind, {}), kind, f"{path}: [{kind}]").items():
        origin = f"{path}: [{kind}.{name}]"
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{origin}: {name!r} cannot be a {kind}'s name: "
                "write letters, digits, '-', '_' and '.'"
            )
        yield name, _table(table, kind, origin), origin


def _table(value: object, kind: str, origin: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{origin}: must be a table: write [{kind}.NAME]")
    return value


def _profile(name: str, table: Mapping[str, Any], origin: str) -> Profile:
    if name in profiles():
        raise ConfigError(f"{origin}: {name!r} is there already: choose another name")
    return from_table(table, origin)


def _refuse_unknown(table: Mapping[str, Any], known: Any, what: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise ConfigError(f"{what} {key!r} — {hint}")


@cache
def _kinds() -> dict[str, Any]:
    kinds = get_type_hints(RepositoryConfig, include_extras=True)
    return {key: kind for key, kind in kinds.items() if key not in NOT_WRITTEN}


def _value(place: str, kind: Any, value: Any) -> Any:
    if get_origin(kind) is dict and isinstance(value, dict):
        one = get_args(kind)[1]
        return {key: _value(f"{place}.{key}", one, value[key]) for key in value}
    try:
        if isinstance(value, str) and kind in (Size, Size | None):
            value = size_from_text(value)
        elif isinstance(value, str) and kind == Duration:
            value = duration_from_text(value)
        return msgspec.convert(value, type=kind)
    except (msgspec.ValidationError, ValueError) as error:
        found = "" if _may_be_secret(kind, value) else f", not {value!r}"
        raise ConfigError(f"{place}: must be {_description(kind)}{found}") from error


def _may_be_secret(kind: Any, value: Any) -> bool:
    """True where somebody may have written a password in place of where it lies."""
    return kind in (CredentialsReference, SecretReference) or "@" in str(value)


def _description(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return str(next(m.description for m in arguments if isinstance(m, msgspec.Meta)))
    if origin is Literal:
        return " or ".join(f'"{choice}"' for choice in arguments)
    if origin is list:
        return 'a list of texts: ["...", "..."]'
    if origin is dict:
        return f'a table {{ FORMAT = "..." }} with {REFERENCES}'
    if kind is bool:
        return "true or false"
    if type(None) in arguments:
        return _description(arguments[0])
    return "a text"


def _refuse_password_of_database(url: str | None, origin: str) -> None:
    base, _, query = (url or "").partition("?")
    user, at, _ = base.partition("://")[2].rpartition("@")
    names = {pair.partition("=")[0].lower() for pair in query.split("&")}
    if (at and ":" in user) or names & {"password", "sslpassword"}:
        raise ConfigError(
            f"{origin}: metadata: must not carry a password; use metadata_password = ..."
        )


def _refuse_secret_in_url(url: str, origin: str) -> None:
    scheme, separator, rest = url.partition("://")
    if separator and scheme != "file" and "@" in rest.partition("/")[0]:
        raise ConfigError(
            f"{origin}: url: must not carry a user or a password; use credentials = ..."
        )

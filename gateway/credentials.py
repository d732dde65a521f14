"""Reads keys and passwords from where the configuration says they are; never shows them.

What opens a store depends on its URL: keys for `s3://`, an account key or a signature for `az://`,
a service account for `gs://`.

A reference (`env`, `profile:NAME`, `file:PATH`, `systemd:NAME`) says where a secret lies, so that
none is ever on a command line or in the configuration itself. A file that others can read
is refused.
"""

import base64
import codecs
import configparser
import json
import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.errors import ConfigError

SECRET_MAX = 64 * 1024  # bytes; a longer file is not a key or a password
OTHERS = stat.S_IRWXG | stat.S_IRWXO  # permission bits that a file with a secret must not have

# What the fields are called in our own files, in the AWS tools' files, and in the environment.
_SPELLINGS = {
    "access_key": ("access_key", "access_key_id", "aws_access_key_id"),
    "secret_key": ("secret_key", "secret_access_key", "aws_secret_access_key"),
    "session_token": ("session_token", "aws_session_token"),
}
_AZURE_SPELLINGS = {  # ours, those of Microsoft's tools, those of restic
    "account": ("account", "azure_storage_account", "azure_account_name"),
    "key": ("key", "account_key", "azure_storage_key", "azure_account_key"),
    "sas": ("sas", "sas_token", "azure_storage_sas_token", "azure_account_sas"),
    "connection_string": ("connection_string", "azure_storage_connection_string"),
}
GOOGLE_KINDS = ("service_account", "authorized_user")  # those that run and fetch nothing
_IN_CONNECTION_STRING = {
    "AccountName": "account",
    "AccountKey": "key",
    "SharedAccessSignature": "sas",
}
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens an object store; its text and its repr say nothing."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class AzureCredentials:
    """What opens a container of Azure: a key of its storage account, or a signature."""

    account: str | None = None  # None: the configuration names it
    key: str | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)  # shared access signature


@dataclass(frozen=True, slots=True)
class GoogleCredentials:
    """What opens a bucket of Google: a service account, or a user, as Google's JSON has it."""

    account: Mapping[str, object] = field(repr=False)


AnyCredentials: TypeAlias = Credentials | AzureCredentials | GoogleCredentials


def credentials_of(
    config: RepositoryConfig, environment: Mapping[str, str] = os.environ
) -> AnyCredentials | None:
    """Return the credentials that `config` refers to; None for `env` when the environment has none.

    Raises `ConfigError` when what it refers to is not there, not whole, or readable by others.
    """
    kind, _, name = config.credentials.partition(":")
    scheme = config.url.partition("://")[0].lower()
    try:
        if kind == "profile" and scheme in ("az", "gs"):
            raise ConfigError(f"{config.credentials}: the AWS tools' profiles open no {scheme}://")
        if kind == "profile":
            return _from_profile(name, environment)
        if kind == "env":
            return _FROM_ENVIRONMENT.get(scheme, _from_environment)(environment)
        content = _content(kind, name, environment)
        return _FROM_TEXT.get(scheme, _from_text)(content, config.credentials)
    except ConfigError as error:
        raise ConfigError(f"{config.origin}: credentials: {error}") from error


def secret_of(
    config: RepositoryConfig, consumer: str, environment: Mapping[str, str] = os.environ
) -> bytes | None:
    """Return the secret configured for the format `consumer`, or None when there is none.

    What comes from a file is trimmed of white space, as restic does. Raises `ConfigError`.
    """
    reference = config.secrets.get(consumer)
    try:
        return None if reference is None else _secret(reference, environment)
    except ConfigError as error:
        raise ConfigError(f"{config.origin}: secrets.{consumer}: {error}") from error


def metadata_password_of(
    config: RepositoryConfig, environment: Mapping[str, str] = os.environ
) -> str | None:
    """Return the password of the metadata database; None when it is libpq's business.

    Raises `ConfigError`.
    """
    reference = config.metadata_password
    try:
        return None if reference is None else os.fsdecode(_secret(reference, environment))
    except ConfigError as error:
        raise ConfigError(f"{config.origin}: metadata_password: {error}") from error


def _secret(reference: str, environment: Mapping[str, str]) -> bytes:
    kind, _, name = reference.partition(":")
    if kind == "env":
        return _from_variable(name, environment)
    return _trimmed(_content(kind, name, environment))


def _from_environment(environment: Mapping[str, str]) -> Credentials | None:
    ours = {name.lower(): text for name, text in environment.items() if name.startswith("AWS_")}
    return _from_fields(ours, "env")


def _from_variable(name: str, environment: Mapping[str, str]) -> bytes:
    if name not in environment:
        raise ConfigError(f"env:{name}: the environment has no variable {name}")
    return os.fsencode(environment[name])


def _content(kind: str, name: str, environment: Mapping[str, str]) -> bytes:
    """Return the bytes of `file:NAME` or `systemd:NAME`."""
    if kind == "file":
        return _private_file(os.path.expanduser(name), f"file:{name}")
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if directory is None:
        raise ConfigError(
            f"systemd:{name}: $CREDENTIALS_DIRECTORY is not set: "
            f"only a systemd unit with LoadCredential={name}:/PATH has it"
        )
    return _private_file(os.path.join(directory, name), f"systemd:{name}", may_be_open=True)


def _private_file(path: str, reference: str, *, may_be_open: bool = False) -> bytes:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & OTHERS and not may_be_open:
                raise ConfigError(
                    f"{reference}: others can read it (mode {stat.S_IMODE(mode):04o}): "
                    f"chmod 600 {path}"
                )
            content = file.read(SECRET_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{reference}: cannot be read: {error.strerror}") from error
    if len(content) > SECRET_MAX:
        raise ConfigError(f"{reference}: longer than {SECRET_MAX} bytes: not a secret")
    return content


def _trimmed(content: bytes) -> bytes:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace").strip().encode()
    try:
        return content.decode().strip().encode()
    except UnicodeDecodeError:
        return content.strip()


def _from_profile(name: str, environment: Mapping[str, str]) -> Credentials:
    credentials = environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    config = environment.get("AWS_CONFIG_FILE", "~/.aws/config")
    for path, section in ((credentials, name), (config, f"profile {name}")):
        full = os.path.expanduser(path)
        if not os.path.exists(full):
            continue
        # The AWS tools' own files follow their rules: ~/.aws/config is often open to all.
        sections = _ini(_private_file(full, path, may_be_open=True), path)
        if sections.has_section(section):
            found = _from_fields(sections[section], f"{path}: [{section}]")
            if found is not None:
                return found
    raise ConfigError(f"profile:{name}: neither {credentials} nor {config} has keys for it")


def _from_text(content: bytes, reference: str) -> Credentials:
    found = _from_fields(_fields(content, reference), reference)
    if found is None:
        raise ConfigError(f"{reference}: has no access_key and no secret_key")
    return found


def _fields(content: bytes, reference: str) -> Mapping[str, object]:
    """Read TOML (`access_key = "..."`), or INI as the AWS tools write it, with a section or not."""
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        sections = _ini(content, reference)
        chosen = "default" if sections.has_section("default") else next(iter(sections.sections()))
        return sections[chosen]


def _ini(content: bytes, reference: str) -> configparser.ConfigParser:
    text = content.decode("utf-8", "replace").strip()
    sections = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        sections.read_string(text if text.startswith("[") else f"[default]\n{text}")
    except configparser.Error:
        # The parser's own message quotes the line, which may be a key: it is not kept.
        raise ConfigError(f"{reference}: neither TOML nor INI with NAME = ...") from None
    return sections


def _from_fields(fields: Mapping[str, object], where: str) -> Credentials | None:
    """Return what `fields` hold under any spelling; None when they hold neither key."""
    found: dict[str, str] = {}
    for name, spellings in _SPELLINGS.items():
        for spelling in spellings:
            value = fields.get(spelling)
            if isinstance(value, str) and value.strip():
                found.setdefault(name, value.strip())
    missing = [name for name in ("access_key", "secret_key") if name not in found]
    if len(missing) == 1:
        raise ConfigError(f"{where}: has no {missing[0]} ({' or '.join(_SPELLINGS[missing[0]])})")
    return None if missing else Credentials(**found)


def _azure_from_environment(environment: Mapping[str, str]) -> AzureCredentials | None:
    ours = {name.lower(): text for name, text in environment.items() if name.startswith("AZURE_")}
    return _azure_from_fields(ours, "env")


def _azure_from_text(content: bytes, reference: str) -> AzureCredentials:
    """Read fields as `_fields` does, or a connection string alone."""
    text = _trimmed(content).decode("utf-8", "replace")
    is_string = "\n" not in text and text.partition("=")[0] in _CONNECTION_STRING_BEGINS
    fields = {"connection_string": text} if is_string else _fields(content, reference)
    found = _azure_from_fields(fields, reference)
    if found is None:
        raise ConfigError(f"{reference}: has no key, no sas and no connection_string")
    return found


def _azure_from_fields(fields: Mapping[str, object], where: str) -> AzureCredentials | None:
    """Return what `fields` hold under any spelling; None when there is nothing that opens."""
    found: dict[str, str] = {}
    for name, spellings in _AZURE_SPELLINGS.items():
        for spelling in spellings:
            value = fields.get(spelling)
            if isinstance(value, str) and value.strip():
                found.setdefault(name, value.strip())
    for pair in found.pop("connection_string", "").split(";"):
        name, _, text = pair.strip().partition("=")
        if name in _IN_CONNECTION_STRING and text:
            found.setdefault(_IN_CONNECTION_STRING[name], text)
    if "key" in found:
        _check_key(found["key"], where)
        found.pop("sas", None)  # the key opens more
    return AzureCredentials(**found) if {"key", "sas"} & found.keys() else None


def _check_key(key: str, where: str) -> None:
    try:
        base64.b64decode(key, validate=True)
    except ValueError:  # its own message could show a part of it
        raise ConfigError(f"{where}: the account key is not base64: is it whole?") from None


def _google_from_environment(environment: Mapping[str, str]) -> GoogleCredentials | None:
    """Read the file that Google's own tools would read."""
    named = environment.get("GOOGLE_APPLICATION_CREDENTIALS")
    folder = environment.get("CLOUDSDK_CONFIG") or os.path.expanduser("~/.config/gcloud")
    path = named or os.path.join(folder, "application_default_credentials.json")
    if named is None and not os.path.exists(path):
        return None
    # Google's tools write it as they like; whoever has the file open to all has chosen so.
    return _google_from_text(_private_file(path, path, may_be_open=True), path)


def _google_from_text(content: bytes, reference: str) -> GoogleCredentials:
    try:
        account = json.loads(content)
    except ValueError:  # its message could show a part of it
        raise ConfigError(f"{reference}: not JSON: write the service account's key file") from None
    kind = account.get("type") if isinstance(account, dict) else None
    if kind not in GOOGLE_KINDS:
        raise ConfigError(f"{reference}: type is none of {', '.join(GOOGLE_KINDS)}")
    return GoogleCredentials(account)


_CONNECTION_STRING_BEGINS = {
    *_IN_CONNECTION_STRING,
    "DefaultEndpointsProtocol",
    "BlobEndpoint",
    "EndpointSuffix",
}
_FROM_ENVIRONMENT: Mapping[str, Callable[[Mapping[str, str]], AnyCredentials | None]] = {
    "az": _azure_from_environment,
    "gs": _google_from_environment,
}
_FROM_TEXT: Mapping[str, Callable[[bytes, str], AnyCredentials]] = {
    "az": _azure_from_text,
    "gs": _google_from_text,
}

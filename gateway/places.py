"""Where a repository's caches, its spool and its control sockets lie on this machine.

One folder per repository in each of three places, open to nobody else. It is named after the store,
not after the configuration, so that a repository that is renamed keeps what is spooled for it.
"""

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.errors import ConfigError

PRIVATE = 0o700
READABLE_MAX = (
    40  # characters of the URL in a folder's name; a Unix socket's path ends at 107 bytes
)
SYSTEM = ("/var/cache/backgate", "/var/lib/backgate", "/run/backgate")  # the units' directories
ROOTS_RUNTIME = "/run/backgate-root"  # the units' own belongs to the service's user
HASH_LENGTH = 10  # hexadecimal digits; 40 bits tell any number of repositories apart


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of one repository. Only `state` may not be deleted."""

    cache: Path  # metadata index, blocks, formats' indexes
    state: Path  # spool and journal
    runtime: Path  # control sockets

    @property
    def spool(self) -> Path:
        """Where files are that are not in the store yet, with their journal."""
        return self.state / "spool"


def places_of(config: RepositoryConfig, environment: Mapping[str, str] = os.environ) -> Places:
    """Return `config`'s folders, made if need be.

    Raises `ConfigError` when one cannot be made, belongs to somebody else, or is not a directory.
    """
    name = folder_name(config)
    places = Places(
        cache=cache_directory(environment) / name,
        state=state_directory(environment) / name,
        runtime=runtime_directory(environment) / name,
    )
    for folder in (places.cache, places.state, places.runtime):
        _make_private(folder.parent)
        _make_private(folder)
    return places


def folder_name(config: RepositoryConfig) -> str:
    """Return a readable name that differs for every store, endpoint and prefix.

    How to speak to an endpoint is no part of it: who learns its profile must not lose the spool.
    """
    url = f"file://{config.url}" if config.url.startswith("/") else config.url
    if config.endpoint_url is not None:
        where = [config.endpoint_url.rstrip("/")]
    elif url.startswith("file:"):
        where = []  # whatever region the environment speaks of
    else:  # the address is made of them
        where = [config.provider or "", config.region or "", config.account or ""]
    identity = "\n".join([url.rstrip("/"), *where])
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{name_from_url(config.url)}-{digest[:HASH_LENGTH]}"


def name_from_url(url: str) -> str:
    """Return what is readable of `url` as a name: `acme-backups-xo` for `s3://acme-backups/xo`."""
    _, _, rest = url.rpartition("://")
    readable = re.sub(r"[^A-Za-z0-9_.]+", "-", rest).strip("-.")
    return readable[-READABLE_MAX:].strip("-.") or "repository"


def cache_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of all caches: systemd's, else XDG's."""
    given = _given("CACHE_DIRECTORY", "XDG_CACHE_HOME", environment)
    return given or _usual(SYSTEM[0], "~/.cache")


def state_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of all spools: systemd's, else XDG's."""
    given = _given("STATE_DIRECTORY", "XDG_STATE_HOME", environment)
    return given or _usual(SYSTEM[1], "~/.local/state")


def runtime_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of all control sockets: systemd's, XDG's, or one that we can make."""
    user = os.geteuid()
    given = _given("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", environment)
    if given is not None or _is_ours(SYSTEM[2]):
        return given or Path(SYSTEM[2])
    if os.path.isdir(f"/run/user/{user}"):
        return Path(f"/run/user/{user}/backgate")
    # No login session (cron, su, a container). Not resolved: a symlink in /tmp may be a trap.
    return Path(ROOTS_RUNTIME) if user == 0 else Path(f"/tmp/backgate-{user}")


def runtime_directories(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Return every folder where a mount's control socket may be: ours, then others'."""
    candidates = [runtime_directory(environment), Path(SYSTEM[2])]
    if os.geteuid() == 0:
        candidates += [Path(ROOTS_RUNTIME)]
        candidates += [*Path("/run/user").glob("*/backgate"), *Path("/tmp").glob("backgate-*")]
    return [path for path in dict.fromkeys(candidates) if os.path.isdir(path)]


def _given(systemd: str, xdg: str, environment: Mapping[str, str]) -> Path | None:
    if given := environment.get(systemd):
        return Path(os.path.realpath(given.partition(":")[0]))  # the first of several is ours
    base = environment.get(xdg, "")  # the specification: a relative path is to be ignored
    return Path(os.path.realpath(os.path.join(base, "backgate"))) if os.path.isabs(base) else None


def _usual(system: str, home: str) -> Path:
    """Return what the units use where it is this user's, so that commands share it; else XDG's."""
    if _is_ours(system):
        return Path(system)
    return Path(os.path.realpath(os.path.join(os.path.expanduser(home), "backgate")))


def _is_ours(directory: str) -> bool:
    try:
        return os.stat(directory).st_uid == os.geteuid()
    except OSError:
        return False


def _make_private(folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=PRIVATE, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise ConfigError(f"{folder}: not a directory")
        if status.st_uid != os.geteuid():
            raise ConfigError(
                f"{folder}: belongs to user {status.st_uid}, not to {os.geteuid()}: "
                "run as that user, or choose another place"
            )
        if stat.S_IMODE(status.st_mode) != PRIVATE:
            folder.chmod(PRIVATE)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror}") from error

"""What `backgate doctor` looks at on this machine, and how each fault is mended."""

import os
import resource
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backgate.fs.formats import installed_formats
from backgate.fs.mountpoint import allows_other_users
from backgate.gateway.config import Configuration, RepositoryConfig, usual_paths
from backgate.gateway.credentials import credentials_of, secret_of
from backgate.gateway.errors import BackgateError
from backgate.gateway.metadata.place import server_of
from backgate.gateway.metadata.postgresql import Connection
from backgate.gateway.places import places_of
from backgate.gateway.units import size_to_text

FILES_WANTED = 4096  # descriptors: sockets, blocks, spool files and 1,000 open files of a tool
SKEW_MAX = 60.0  # seconds; S3 refuses requests signed 15 minutes off, tokens often sooner
_MODULE = "modprobe fuse   (in a container: run it with --device /dev/fuse --cap-add SYS_ADMIN)"
_NO_S3_KEYS = (
    "no keys in the environment; the SDK's own search is left (profiles, instance roles)",
    "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
)
_NO_KEYS = {
    "az": (
        "neither a key nor a signature in the environment; what is open to all can be read",
        "export AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN",
    ),
    "gs": (
        "no key file is named in the environment; what is open to all can be read",
        "export GOOGLE_APPLICATION_CREDENTIALS",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, and the way to mend it."""

    subject: str
    state: Literal["ok", "warning", "wrong"]
    says: str
    mend: str = ""


def machine() -> Iterator[Finding]:
    """Look at what mounting needs of this machine."""
    yield _device()
    yield _fusermount()
    yield _allow_other()
    yield _descriptors()


def configuration(found: Configuration) -> Finding:
    """Look at which file was read."""
    if found.path is None:
        looked = " and ".join(str(path) for path in usual_paths())
        return Finding(
            "configuration",
            "warning",
            f"none at {looked}",
            "write one when a URL on the command line is not enough (docs/configuration.md)",
        )
    names = ", ".join(found.repositories) or "none"
    return Finding("configuration", "ok", f"{found.path}: repositories: {names}")


def repository(config: RepositoryConfig) -> Iterator[Finding]:
    """Look at what `config` refers to on this machine: keys, passwords, folders, room."""
    yield _credentials(config)
    for consumer in config.secrets:
        yield _secret(config, consumer)
    if config.metadata is not None:
        yield _database(config)
    yield _places(config)


def clock(config: RepositoryConfig, skew: float | None) -> Finding:
    """Judge how far our clock is from the store's, in seconds; None: the store does not say."""
    subject = f"{config.name}: clock"
    if skew is None:
        return Finding(subject, "ok", "the store does not tell the time")
    if abs(skew) <= SKEW_MAX:
        return Finding(subject, "ok", f"{abs(skew):.0f} s from the store's")
    which = "behind" if skew > 0 else "ahead of"
    return Finding(
        subject,
        "wrong",
        f"{abs(skew):.0f} s {which} the store's, which refuses requests signed at a wrong time",
        "timedatectl set-ntp true",
    )


def _device() -> Finding:
    device = "/dev/fuse"
    try:
        if not stat.S_ISCHR(os.stat(device).st_mode):
            return Finding(device, "wrong", "not a device", _MODULE)
    except OSError as error:
        return Finding(device, "wrong", error.strerror or "missing", _MODULE)
    if not os.access(device, os.R_OK | os.W_OK):
        return Finding(device, "wrong", "not open to this user", f"chmod 666 {device}")
    return Finding(device, "ok", "can be opened")


def _fusermount() -> Finding:
    found = shutil.which("fusermount3")
    if found is not None and (os.geteuid() == 0 or os.stat(found).st_mode & stat.S_ISUID):
        return Finding("fusermount3", "ok", found)
    if found is not None:
        return Finding("fusermount3", "wrong", f"{found} is not setuid root", f"chmod u+s {found}")
    is_needed = os.geteuid() != 0
    says = "missing; only root can mount without it"
    state: Literal["wrong", "warning"] = "wrong" if is_needed else "warning"
    return Finding("fusermount3", state, says, "apt-get install fuse3")


def _allow_other() -> Finding:
    if allows_other_users():
        return Finding("allow_other", "ok", "may be asked for")
    mend = "write user_allow_other into /etc/fuse.conf, if other users are to see the mount"
    return Finding("allow_other", "warning", "only root may ask for it", mend)


def _descriptors() -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= FILES_WANTED:
        return Finding("open files", "ok", f"up to {hard}")
    mend = f"ulimit -n {FILES_WANTED}, or LimitNOFILE={FILES_WANTED} in the unit"
    return Finding("open files", "wrong", f"only {hard}, {FILES_WANTED} are needed", mend)


def _credentials(config: RepositoryConfig) -> Finding:
    subject = f"{config.name}: credentials"
    try:
        found = credentials_of(config)
    except BackgateError as error:
        return Finding(subject, "wrong", str(error), "docs/secrets.md says how to write them")
    if found is None and not config.url.startswith(("/", "file:")):
        says, mend = _NO_KEYS.get(config.url.partition(":")[0].lower(), _NO_S3_KEYS)
        return Finding(subject, "warning", says, f"{mend}, or set credentials")
    return Finding(subject, "ok", config.credentials if found else "none needed")


def _database(config: RepositoryConfig) -> Finding:
    subject = f"{config.name}: metadata"
    try:
        Connection(server_of(config)).close()
    except BackgateError as error:
        return Finding(subject, "wrong", str(error), "docs/shared-index.md says how to set it up")
    return Finding(subject, "ok", "the database answers")


def _secret(config: RepositoryConfig, consumer: str) -> Finding:
    subject = f"{config.name}: secrets.{consumer}"
    formats = installed_formats()
    if consumer not in formats:
        mend = f"known are {', '.join(sorted(formats))}; or install the package that has it"
        return Finding(subject, "wrong", f"no format {consumer!r} is installed", mend)
    try:
        found = secret_of(config, consumer)
    except BackgateError as error:
        return Finding(subject, "wrong", str(error), "docs/secrets.md says how to write them")
    if not found:
        mend = f"write the password to {config.secrets[consumer]}, unless it is meant so"
        return Finding(subject, "warning", "empty, which stands for the empty password", mend)
    return Finding(subject, "ok", config.secrets[consumer])


def _places(config: RepositoryConfig) -> Finding:
    subject = f"{config.name}: folders"
    try:
        places = places_of(config)
    except BackgateError as error:
        return Finding(subject, "wrong", str(error), "docs/places.md says which folders these are")
    for folder, wanted, key in (
        (places.state, config.spool, "spool"),
        (places.cache, config.block_cache, "block_cache"),
    ):
        free = shutil.disk_usage(folder).free + _held(folder)
        if free < wanted:
            return Finding(
                subject,
                "warning",
                f"{folder}: {size_to_text(free)} free, {key} may take {size_to_text(wanted)}",
                f"set {key} lower, or give the folder more room",
            )
    return Finding(subject, "ok", f"{places.cache}, {places.state}")


def _held(folder: Path) -> int:
    """Return the bytes that what is in `folder` takes already."""
    held = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                held += os.lstat(os.path.join(where, name)).st_blocks * 512  # stat(2)'s unit
            except FileNotFoundError:
                continue  # a running mount is at work there
    return held

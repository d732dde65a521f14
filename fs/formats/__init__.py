"""The registry of backup formats: ours by name, and whatever packages add by an entry point.

A package adds a format with an entry point of the group `backgate.formats` that names a subclass of
`backgate.fs.format.BackupFormat`. Nothing is imported before the format is asked for.
"""

import difflib
from collections.abc import Mapping
from importlib.metadata import EntryPoint

from backgate.fs.format import BackupFormat
from backgate.gateway.config import RepositoryConfig
from backgate.gateway.errors import ConfigError
from backgate.gateway.plugins import origin, plugins

GROUP = "backgate.formats"
FORMATS = {
    "image": "backgate.fs.formats.image.format:ImageFormat",
    "restic": "backgate.fs.formats.restic.format:ResticFormat",
    "xen-orchestra": "backgate.fs.formats.xen_orchestra.format:XenOrchestraFormat",
    "tar": "backgate.fs.formats.tar.format:TarFormat",
}


def installed_formats() -> Mapping[str, EntryPoint]:
    """Return every format by name, not yet imported; `ConfigError` when two have one name."""
    return plugins(GROUP, FORMATS)


def check_secrets(config: RepositoryConfig) -> None:
    """Return when each secret of `config` is one format's; `ConfigError` says which there are."""
    known = installed_formats()
    for name in config.secrets:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"{config.origin}: secrets: no format {name!r} is installed — "
                f"{hint}known are {', '.join(sorted(known))}"
            )


def format_class(plugin: EntryPoint) -> type[BackupFormat]:
    """Import a format and return its class.

    Raises `ConfigError` when it cannot be imported or is not a format of that name.
    """
    what = f"format {plugin.name!r} of {origin(plugin)}"
    try:
        found = plugin.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{what}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, BackupFormat)):
        raise ConfigError(f"{what}: not a BackupFormat")
    if found.name != plugin.name:
        raise ConfigError(f"{what}: calls itself {found.name!r}")
    return found

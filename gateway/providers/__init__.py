"""The object stores that can be opened, by the scheme of their URL; no SDK is loaded before use.

A package adds a scheme by an entry point of the group `backgate.providers`: the scheme is its name,
and it loads a function `(config, credentials) -> (Provider, prefix)`.
"""

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import cast

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import AnyCredentials
from backgate.gateway.errors import ConfigError
from backgate.gateway.plugins import loaded, plugins
from backgate.gateway.provider import Provider

GROUP = "backgate.providers"
BUILT_IN = {
    "s3": "backgate.gateway.providers.s3:open_url",
    "az": "backgate.gateway.providers.azure:open_url",
    "gs": "backgate.gateway.providers.gcs:open_url",
    "file": "backgate.gateway.providers.local:open_url",
    "memory": "backgate.gateway.providers.memory:open_url",
}

Opener = Callable[[RepositoryConfig, AnyCredentials | None], tuple[Provider, str]]


def open_provider(
    config: RepositoryConfig, credentials: AnyCredentials | None
) -> tuple[Provider, str]:
    """Return the provider that `config.url` names and the key prefix in it ("" or "xo/").

    Asks the store nothing. Raises `ConfigError` for a scheme or profile that nobody knows.
    """
    scheme = "file" if config.url.startswith("/") else config.url.partition(":")[0].lower()
    found = schemes()
    if scheme not in found:
        known = ", ".join(f"{name}://" for name in sorted(found))
        raise ConfigError(f"{config.origin}: url: no provider for {scheme}:// — known are {known}")
    opener = cast(Opener, loaded(found[scheme]))
    return opener(config, credentials)


def schemes() -> dict[str, EntryPoint]:
    """Return every scheme and what answers for it; `ConfigError` when two plug-ins claim one."""
    return plugins(GROUP, BUILT_IN)

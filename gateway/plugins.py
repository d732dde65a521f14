"""Finds the built-in and installed implementations of a contract; loads one when it is wanted.

A package adds its own by an entry point of the contract's group (`backgate.providers`, ...). Two of
one name are refused: which of them answers must not depend on the order of installation.
"""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from backgate.gateway.errors import ConfigError


def plugins(group: str, built_in: Mapping[str, str]) -> dict[str, EntryPoint]:
    """Return what implements `group`, by name; `built_in` gives ours as "module:attribute".

    Raises `ConfigError` when two have one name.
    """
    found = {name: EntryPoint(name, value, group) for name, value in sorted(built_in.items())}
    for plugin in entry_points(group=group):
        other = found.get(plugin.name)
        if other is not None and other.value != plugin.value:
            raise ConfigError(
                f"{group}: two plug-ins are called {plugin.name!r}: {origin(other)} and "
                f"{origin(plugin)}: uninstall one of the packages"
            )
        found[plugin.name] = plugin
    return found


def loaded(plugin: EntryPoint) -> Any:
    """Return what a plug-in adds; `ConfigError` when its package is not whole."""
    try:
        return plugin.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{plugin.group}: {plugin.name!r} of {origin(plugin)} cannot be loaded: {error}"
        ) from error


def origin(plugin: EntryPoint) -> str:
    """Return the distribution that a plug-in comes from, as a person knows it."""
    return "backgate" if plugin.dist is None else f"{plugin.dist.name} {plugin.dist.version}"

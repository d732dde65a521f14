"""Repositories for a test to mount: `functools.partial` of these is what `mounted` takes."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path

from support.mounting import Mounted, mounted
from support.writing import memory, opened

from backgate.fs.gateway_tree import View, open_gateway_tree
from backgate.fs.tree import Tree
from backgate.gateway.config import Kind, RepositoryConfig
from backgate.gateway.places import places_of
from backgate.gateway.provider import NO_METADATA, Provider
from backgate.gateway.providers import open_provider
from backgate.gateway.repository import open_repository

PLACES = ("CACHE_DIRECTORY", "STATE_DIRECTORY", "RUNTIME_DIRECTORY")


def on_disk(home: Path, **table: object) -> RepositoryConfig:
    """A repository in a local store below `home`."""
    return RepositoryConfig(name="store", url=f"file://{home}/store", **table)  # type: ignore[arg-type]


@asynccontextmanager
async def shown(
    home: Path, config: RepositoryConfig, view: View, _happened: Callable[[str, bytes], None]
) -> AsyncIterator[Tree]:
    """A repository as the command mounts it, with its caches and spool below `home`."""
    places = places_of(config, {name: str(home / name) for name in PLACES})
    async with (
        open_repository(config, places, None, writable=True) as repository,
        open_gateway_tree(repository, view) as tree,
    ):
        yield tree.tree


@asynccontextmanager
async def small_parts(
    home: Path, config: RepositoryConfig, _happened: Callable[[str, bytes], None]
) -> AsyncIterator[Tree]:
    """A repository in memory in which each file has many parts."""
    async with opened(home / "gateway", memory(), config) as repository:
        yield repository.tree


@contextmanager
def mounted_anew(store: Path, home: Path, kind: Kind = "repository") -> Iterator[Mounted]:
    """Mount the local store `store` with caches that know nothing of it."""
    home.mkdir()
    config = RepositoryConfig(name="store", url=f"file://{store}", kind=kind)
    with mounted(partial(shown, home, config, "repository"), home) as mount:
        yield mount


@contextmanager
def opened_store(store: Path) -> Iterator[Provider]:
    """Open the local store `store` beside the gateway, as another tool."""
    provider, _ = open_provider(RepositoryConfig(name="store", url=f"file://{store}"), None)
    with closing(provider):
        yield provider


def metadata(store: Path, key: str) -> Mapping[str, str]:
    """Return what the local store `store` keeps with an object."""
    with opened_store(store) as provider:
        return provider.head(key).metadata or NO_METADATA

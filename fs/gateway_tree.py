"""What a mount shows of a repository: the objects to write to, and the backups found among them."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import trio

from backgate.fs.catalogue import Catalogue
from backgate.fs.format import BackupFormat, Surroundings
from backgate.fs.formats import format_class, installed_formats
from backgate.fs.objects_tree import ObjectsTree
from backgate.fs.opened import open_backups
from backgate.fs.parser.places import Places
from backgate.fs.repository_tree import RepositoryTree
from backgate.fs.root_tree import RootTree
from backgate.fs.tree import Tree
from backgate.gateway.credentials import secret_of
from backgate.gateway.metadata.cache import Metadata
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.repository import Repository
from backgate.gateway.units import MIB

View: TypeAlias = Literal["all", "repository", "backups"]

FORMAT_MEMORY = 32 * MIB  # bytes that the caches of one format may hold
PASSPHRASES = "image"  # the secret whose lines open encrypted volumes, whichever format finds them
WORKERS = 2 * (os.cpu_count() or 1)  # threads that decompress and decrypt


@dataclass(frozen=True, slots=True)
class Shown:
    """The tree of a view, and the catalogue behind it for commands that list backups."""

    tree: Tree
    catalogue: Catalogue


@asynccontextmanager
async def open_gateway_tree(repository: Repository, view: View = "all") -> AsyncIterator[Shown]:
    """Provide the tree of `repository`; its backups are closed when the context ends."""
    async with open_backups() as opened, trio.open_nursery() as nursery:
        formats = _formats(repository, nursery)
        patience = repository.config.backups_patience
        landmarks = _Landmarks(repository.metadata.patient(patience), formats)
        catalogue = Catalogue(landmarks, formats, opened)
        trees: dict[str, Tree] = {
            "repository": _objects(repository),
            "backups": catalogue,
        }
        both = RootTree({name.encode(): tree for name, tree in trees.items()})
        try:
            yield Shown(trees.get(view, both), catalogue)
        finally:
            nursery.cancel_scope.cancel()


def _objects(repository: Repository) -> Tree:
    return ObjectsTree(repository) if repository.spool is None else RepositoryTree(repository)


class _Landmarks:
    """The index, asked for the landmarks of all formats in one pass."""

    def __init__(self, metadata: Metadata, formats: Mapping[str, BackupFormat]) -> None:
        self._metadata, self._formats = metadata, formats

    @property
    def generation(self) -> int:
        return self._metadata.generation

    async def complete(self) -> None:
        await self._metadata.complete()

    async def landmarks(
        self, formats: Mapping[str, BackupFormat]
    ) -> Mapping[str, Sequence[ObjectInfo]]:
        found = await self._metadata.landmarks(self._is_landmark)
        return {
            name: [info for info in found if format_.is_landmark(info.key)]
            for name, format_ in formats.items()
        }

    def _is_landmark(self, key: str) -> bool:
        """True for any format; always the same function, so that the index keeps the answer."""
        return any(format_.is_landmark(key) for format_ in self._formats.values())


def _formats(repository: Repository, nursery: trio.Nursery) -> dict[str, BackupFormat]:
    workers, parsers = trio.CapacityLimiter(WORKERS), Places()
    lines = (secret_of(repository.config, PASSPHRASES) or b"").splitlines()
    passphrases = [line for line in lines if line]
    formats: dict[str, BackupFormat] = {}
    for name, plugin in installed_formats().items():
        directory = repository.places.cache / "formats" / name
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        formats[name] = format_class(plugin)(
            Surroundings(
                objects=repository.objects,
                cache_directory=directory,
                secret=secret_of(repository.config, name),
                nursery=nursery,
                workers=workers,
                memory_limit=FORMAT_MEMORY,
                passphrases=passphrases,
                parsers=parsers,
            )
        )
    return formats

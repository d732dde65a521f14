"""The restic format over a folder of objects, for tests that forge the repository."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from contracts.format_contract import found, surroundings
from support.objects import FolderObjects
from support.restic import PASSWORD

from backgate.fs.format import Backup
from backgate.fs.formats.restic.format import ResticFormat
from backgate.fs.tree import Tree


@asynccontextmanager
async def opened(
    store: Path, cache: Path, password: bytes | None = PASSWORD.encode()
) -> AsyncIterator[tuple[ResticFormat, list[Backup]]]:
    """The format over `store`, and what it finds there."""
    async with surroundings(store, cache, password) as lent:
        format_ = ResticFormat(lent)
        yield format_, await found(format_)


@asynccontextmanager
async def only_tree(store: Path, cache: Path) -> AsyncIterator[tuple[Tree, FolderObjects]]:
    """The tree of the only backup in `store`, and the objects it reads from."""
    async with opened(store, cache) as (format_, (backup,)), format_.open(backup) as tree:
        objects = format_.surroundings.objects
        assert isinstance(objects, FolderObjects)
        yield tree, objects

"""A repository in memory with a real spool, which can be crashed and opened again."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import trio

from backgate.fs.repository_file import RepositoryFile
from backgate.fs.repository_tree import RepositoryTree
from backgate.fs.tree import Entry
from backgate.gateway.blocks import BlockCache, open_blocks
from backgate.gateway.config import RepositoryConfig
from backgate.gateway.metadata.cache import Metadata, open_metadata
from backgate.gateway.provider import Abilities, Limits, ObjectInfo
from backgate.gateway.providers.memory import Memory
from backgate.gateway.reader import ObjectReader
from backgate.gateway.recovery import open_spool
from backgate.gateway.repository import Repository
from backgate.gateway.source import Source
from backgate.gateway.spool import Spool
from backgate.gateway.store import ObjectStore
from backgate.gateway.units import KIB, MIB

PART = 4 * KIB  # bytes; small, so that small files have many parts
SMALL = Limits(part_min=KIB, object_max=64 * MIB)
CONFIG = RepositoryConfig(name="test", url="memory://test", spool=64 * MIB)


@dataclass
class Open:
    """What a writable tree needs of a `Repository`, and the tree."""

    config: RepositoryConfig
    store: ObjectStore
    metadata: Metadata
    blocks: BlockCache
    spool: Spool
    provider: Memory

    def __post_init__(self) -> None:
        self.tree = RepositoryTree(cast(Repository, self))

    def source(self, info: ObjectInfo) -> Source:
        return ObjectReader(self.store, info, self.blocks)

    def stored_keys(self) -> list[str]:
        """What the store holds, without directories' markers."""
        page = self.provider.page()
        return [info.key for info in page.objects if not info.key.endswith("/")]

    def content(self, key: str) -> bytes:
        """The bytes of an object."""
        return self.provider.get(key, 0, 2**62)


def memory(**abilities: object) -> Memory:
    """A store whose parts are small."""
    return Memory("memory:test", Abilities(**{"limits": SMALL, **abilities}))  # type: ignore[arg-type]


@asynccontextmanager
async def opened(
    folder: Path,
    provider: Memory,
    config: RepositoryConfig = CONFIG,
    *,
    patience: float = 0.0,
    max_age: float = 60.0,
) -> AsyncIterator[Open]:
    """Open the repository whose caches and spool lie in `folder`."""
    store = ObjectStore(provider, patience=patience)
    with open_blocks(folder / "blocks", 16 * MIB) as blocks:
        async with open_metadata(
            store, folder / "metadata", writers=config.writers, max_age=max_age, crawls=False
        ) as metadata:
            sources = partial(_source, store, blocks)
            async with open_spool(
                folder / "spool", config, store, metadata, sources, first_part=PART
            ) as spool:
                yield Open(config, store, metadata, blocks, spool, provider)


def _source(store: ObjectStore, blocks: BlockCache, info: ObjectInfo) -> Source:
    return ObjectReader(store, info, blocks)


async def create(repository: Open, path: str, *, exclusive: bool = False) -> RepositoryFile:
    """Create `path`, open."""
    directory, name = await place(repository.tree, path)
    _, file = await repository.tree.create(
        directory, name, mode=0o600, uid=1, gid=2, exclusive=exclusive
    )
    return file


async def write(tree: RepositoryTree, path: str, data: bytes) -> Entry:
    """Create `path` with `data`, as cp does."""
    directory, name = await place(tree, path)
    entry, file = await tree.create(directory, name, mode=0o644, uid=1, gid=2, exclusive=False)
    try:
        await file.write_at(0, data)
        await file.flush()
    finally:
        await file.release()
    return entry


async def place(tree: RepositoryTree, path: str) -> tuple[Entry, bytes]:
    """Return the directory of `path`, and its last name."""
    *above, name = path.encode().split(b"/")
    directory = await tree.root()
    for one in above:
        directory = await tree.child(directory, one)
    return directory, name


async def entry_at(tree: RepositoryTree, path: str) -> Entry:
    directory, name = await place(tree, path)
    return await tree.child(directory, name)


async def read(tree: RepositoryTree, path: str) -> bytes:
    """Return what a reader of `path` sees."""
    async with tree.open(await entry_at(tree, path)) as source:
        return bytes(await source.read_at(0, source.size))


async def rename(tree: RepositoryTree, old: str, new: str, *, no_replace: bool = False) -> None:
    """rename(2)."""
    await tree.rename(*await place(tree, old), *await place(tree, new), no_replace=no_replace)


async def make_directory(tree: RepositoryTree, path: str) -> Entry:
    """mkdir(2)."""
    return await tree.make_directory(*await place(tree, path), mode=0o755, uid=1, gid=2)


async def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds; what brings it about runs in threads too."""
    with trio.fail_after(120):
        while not condition():  # noqa: ASYNC110 - an event would have to be in the code
            await trio.sleep(0.001)


async def names(tree: RepositoryTree, path: str = "") -> list[str]:
    """Return what a directory shows."""
    directory = await (entry_at(tree, path) if path else tree.root())
    found: list[str] = []
    cursor = None
    while True:
        page = await tree.children(directory, cursor)
        found += [entry.name.decode() for entry in page.entries]
        cursor = page.cursor
        if cursor is None:
            return found

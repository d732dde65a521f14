"""Open the tree of a TARGET without a mount, for as long as one command needs it."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio

from backgate.cli.options import Choice
from backgate.fs.formats import check_secrets
from backgate.fs.gateway_tree import Shown, open_gateway_tree
from backgate.fs.tree import Entry
from backgate.fs.walk import Place, child, enter, resolve
from backgate.gateway.credentials import credentials_of
from backgate.gateway.places import places_of
from backgate.gateway.repository import Repository, open_repository

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """An open repository, and its tree as a mount would show it."""

    choice: Choice
    repository: Repository
    shown: Shown

    async def place(self, path: str, *, follow: bool = True) -> Place:
        """Return where `path` of the tree leads; raises what walking it raises."""
        return await resolve(self.shown.tree, os.fsencode(path), follow=follow)

    async def named(self, path: str) -> tuple[Place, Entry]:
        """Return the directory that holds `path`, and its entry there, symlinks not followed."""
        parent, _, name = path.rpartition("/")
        tree, directory = await enter(*await self.place(parent))
        return (tree, directory), await child(tree, directory, os.fsencode(name), os.fsencode(path))


@asynccontextmanager
async def session(choice: Choice) -> AsyncIterator[Session]:
    """Provide the tree of `choice` for reading; nothing can be written through it."""
    config = choice.config
    check_secrets(config)
    places, credentials = places_of(config), credentials_of(config)
    async with (
        open_repository(config, places, credentials, writable=False, crawls=False) as repository,
        open_gateway_tree(repository) as shown,
    ):
        yield Session(choice, repository, shown)


def in_session(choice: Choice, act: Callable[[Session], Awaitable[T]]) -> T:
    """Run `act` with a session on `choice`, and return what it returns."""

    async def run() -> T:
        async with session(choice) as opened:
            return await act(opened)

    return trio.run(run)

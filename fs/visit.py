"""Visit everything below a directory, over trees that continue in one another."""

import errno
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from backgate.fs.tree import Entry, Tree
from backgate.fs.walk import Place, enter
from backgate.gateway.errors import (
    BackgateError,
    Damaged,
    FileError,
    NotFound,
    PasswordNeeded,
    Replaced,
)

DEPTH_MAX = 500  # directories in one another; a damaged or hostile tree may have no end

# What concerns one file or one backup: the others are worth going on for. A store that cannot be
# asked is not among them, it would be the same for each.
CONFINED = (Damaged, FileError, NotFound, PasswordNeeded, Replaced)

# Called with the path below the top, the tree and directory, and the entry; false: do not go in.
See: TypeAlias = Callable[[bytes, Place, Entry], Awaitable[bool]]
Complain: TypeAlias = Callable[[bytes, BackgateError], None]  # with the path that failed


async def visit(top: Place, see: See, complain: Complain) -> None:
    """Show every entry below the directory `top` to `see`, a directory before what it holds.

    What cannot be listed goes to `complain` where it harms only itself. Raises `StoreError` when
    the store cannot be asked.
    """
    waiting: list[tuple[bytes, Place]] = [(b"", top)]
    while waiting:
        path, place = waiting.pop()
        below: list[tuple[bytes, Place]] = []
        try:
            await _visit_directory(path, await enter(*place), see, below)
        except CONFINED as error:
            complain(path.rstrip(b"/"), error)
        waiting += reversed(below)


async def settled(tree: Tree, directory: Entry, entry: Entry) -> Entry:
    """Return `entry` with attributes that can be relied on; asks when they are provisional."""
    return entry if entry.is_settled else await tree.child(directory, entry.name)


def check_name(name: bytes) -> bytes:
    """Return `name` if it can be a file's; a damaged or hostile backup may hold any bytes.

    Raises `FileError` (EINVAL).
    """
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise FileError(errno.EINVAL, repr(name), "cannot be a file's name")
    return name


def check_depth(path: bytes) -> None:
    """Raise `FileError` (ELOOP) when `path` is deeper than any honest one."""
    if path.count(b"/") >= DEPTH_MAX:
        raise FileError(errno.ELOOP, path, f"more than {DEPTH_MAX} directories in one another")


async def _visit_directory(
    path: bytes, place: Place, see: See, below: list[tuple[bytes, Place]]
) -> None:
    check_depth(path)
    tree, directory = place
    cursor: bytes | None = None
    while True:
        page = await tree.children(directory, cursor)
        for entry in page.entries:
            where = path + check_name(entry.name)
            if await see(where, place, entry) and entry.is_directory:
                below.append((where + b"/", (tree, entry)))
        cursor = page.cursor
        if cursor is None:
            return

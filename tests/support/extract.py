"""Copy a `Tree` out into a real directory, and look into one: what a restore does, without FUSE."""

import os
import stat
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from backgate.fs.tree import Entry, Tree
from backgate.gateway.source import Source

PIECE = 1 << 20  # bytes read at a time


async def extract(tree: Tree, target: Path) -> None:
    """Make `target` a copy of `tree`: contents, holes, modes, owners, times, links, xattrs."""
    target.mkdir(parents=True, exist_ok=True)
    await _extract_directory(tree, await tree.root(), os.fsencode(target), {})


async def entries(tree: Tree, directory: Entry) -> AsyncGenerator[Entry, None]:
    """Give all children of a directory, page by page."""
    cursor = None
    while True:
        page = await tree.children(directory, cursor)
        for entry in page.entries:
            yield entry
        if page.cursor is None:
            return
        cursor = page.cursor


async def find(tree: Tree, path: bytes) -> Entry:
    """Return the entry at `path`; symlinks are not followed."""
    entry = await tree.root()
    for name in filter(None, path.split(b"/")):
        entry = await tree.child(entry, name)
    return entry


async def content(tree: Tree, path: bytes) -> bytes:
    """Return all bytes of the file at `path`."""
    async with tree.open(await find(tree, path)) as source:
        return await read_all(source)


async def read_all(source: Source) -> bytes:
    """Return a source's bytes, read in pieces."""
    return b"".join([bytes(await source.read_at(at, PIECE)) for at in range(0, source.size, PIECE)])


async def _extract_directory(
    tree: Tree, directory: Entry, path: bytes, made: dict[object, bytes]
) -> None:
    async with aclosing(entries(tree, directory)) as found:
        async for entry in found:
            below = os.path.join(path, entry.name)
            if entry.is_directory:
                os.mkdir(below)
                await _extract_directory(tree, entry, below, made)
            elif entry.identity is not None and entry.identity in made:
                os.link(made[entry.identity], below, follow_symlinks=False)
            else:
                await _extract_one(tree, entry, below)
                if entry.identity is not None:
                    made[entry.identity] = below
    await _set_attributes(tree, directory, path)


async def _extract_one(tree: Tree, entry: Entry, path: bytes) -> None:
    if entry.is_symlink:
        assert entry.target is not None
        os.symlink(entry.target, path)
    elif entry.is_file:
        async with tree.open(entry) as source:
            await _write(source, path)
    else:
        os.mknod(path, entry.mode, entry.rdev)
    await _set_attributes(tree, entry, path)


async def _write(source: Source, path: bytes) -> None:
    with open(path, "xb") as file:
        for at in range(0, source.size, PIECE):
            data = await source.read_at(at, PIECE)
            assert len(data) == min(PIECE, source.size - at)
            if any(data):
                os.pwrite(file.fileno(), data, at)
        file.truncate(source.size)


async def _set_attributes(tree: Tree, entry: Entry, path: bytes) -> None:
    if os.geteuid() == 0:
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    if entry.has_xattrs:
        for name, value in (await tree.xattrs(entry)).items():
            os.setxattr(path, name, value, follow_symlinks=False)
    if not entry.is_symlink:
        os.chmod(path, stat.S_IMODE(entry.mode))
    times = (entry.mtime_ns if entry.atime_ns is None else entry.atime_ns, entry.mtime_ns)
    os.utime(path, ns=times, follow_symlinks=False)

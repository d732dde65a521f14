"""Say in words how a `Tree` differs from the directory it was backed up from, in everything."""

import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from support.extract import entries, read_all

from backgate.fs.tree import Entry, Tree

T = TypeVar("T")


async def differences_from(
    tree: Tree, directory: Path, top: Entry | None = None, *, links: bool = True
) -> list[str]:
    """Return one line for each difference of `tree` (from `top` on) from `directory`.

    Compared are names, types, permission bits, owners, sizes, times to the nanosecond, symlink
    targets, device numbers, extended attributes, contents, and which names are hard links.
    """
    shown = {path: entry async for path, entry in walk(tree, top or await tree.root(), b"")}
    real = dict(_walk_directory(os.fsencode(directory)))
    found = [f"{path!r}: only on one side" for path in sorted(shown.keys() ^ real.keys())]
    for path in sorted(shown.keys() & real.keys()):
        full = os.path.join(os.fsencode(directory), path)
        found += [f"{path!r}: {what}" for what in await _differing(tree, shown[path], full)]
    if links and _groups(shown, _identity) != _groups(real, _inode):
        found.append("hard links differ")
    return found


async def walk(tree: Tree, directory: Entry, path: bytes) -> AsyncIterator[tuple[bytes, Entry]]:
    """Give everything below `directory`, with its path."""
    async for entry in entries(tree, directory):
        below = os.path.join(path, entry.name)
        yield below, entry
        if entry.is_directory:
            async for one in walk(tree, entry, below):
                yield one


def _walk_directory(top: bytes) -> list[tuple[bytes, os.stat_result]]:
    return [
        (os.path.relpath(os.path.join(folder, name), top), os.lstat(os.path.join(folder, name)))
        for folder, directories, files in os.walk(top)
        for name in [*directories, *files]
    ]


async def _differing(tree: Tree, entry: Entry, path: bytes) -> list[str]:
    status = os.lstat(path)
    if stat.S_IFMT(entry.mode) != stat.S_IFMT(status.st_mode):
        return [f"type {entry.mode:o} and {status.st_mode:o}"]
    pairs: dict[str, tuple[object, object]] = {
        "uid": (entry.uid, status.st_uid),
        "gid": (entry.gid, status.st_gid),
        "mtime": (entry.mtime_ns, status.st_mtime_ns),
        "mode": (entry.mode, status.st_mode),
        "xattrs": (dict(await tree.xattrs(entry)), _xattrs(path)),
    }
    if entry.is_symlink:
        pairs["target"] = (entry.target, os.readlink(path))
    elif entry.is_file:
        pairs["size"] = (entry.size, status.st_size)
        pairs["links"] = (entry.nlink, status.st_nlink)
        async with tree.open(entry) as source:
            with open(path, "rb") as file:
                pairs["content"] = (await read_all(source) == file.read(), True)
    elif not entry.is_directory:
        pairs["device"] = (entry.rdev, status.st_rdev)
    return [f"{what} {one!r} and {two!r}" for what, (one, two) in pairs.items() if one != two]


def _xattrs(path: bytes) -> dict[bytes, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {os.fsencode(name): os.getxattr(path, name, follow_symlinks=False) for name in names}


def _identity(entry: Entry) -> object:
    return entry.identity


def _inode(status: os.stat_result) -> object:
    is_linked = status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)
    return (status.st_dev, status.st_ino) if is_linked else None


def _groups(found: Mapping[bytes, T], identity: Callable[[T], object]) -> set[frozenset[bytes]]:
    groups: dict[object, set[bytes]] = {}
    for path, one in found.items():
        if (key := identity(one)) is not None:
            groups.setdefault(key, set()).add(path)
    return {frozenset(group) for group in groups.values() if len(group) > 1}

"""Walk a path over trees that continue in one another.

FUSE has the kernel walk for it, one name at a time; commands have this. A directory with a
`junction` is entered: whoever arrives there is at the root of the other tree.
"""

import errno
from collections import deque

from backgate.fs.tree import Entry, Tree
from backgate.gateway.errors import FileError

SYMLINKS_MAX = 40  # followed on one path, as Linux does

Place = tuple[Tree, Entry]


async def enter(tree: Tree, entry: Entry) -> Place:
    """Return where the children of `entry` are: its own tree, or the root of its junction."""
    if entry.junction is None:
        return tree, entry
    return entry.junction, await entry.junction.root()


async def child(tree: Tree, directory: Entry, name: bytes, path: bytes) -> Entry:
    """Return an entry on the way to `path`, which is what the error names where there is none."""
    try:
        return await tree.child(directory, name)
    except FileError as error:
        raise FileError(error.errno, path) from error


async def resolve(tree: Tree, path: bytes, *, follow: bool = True) -> Place:
    """Return the tree that `path` ends in, and its entry there; a junction at the end is entered.

    Symlinks within the tree are followed as the kernel would, at the last name only with `follow`.
    `..` at the top stays there.

    Raises `FileError`: ENOENT, ENOTDIR, or ELOOP; and what the trees raise.
    """
    walked: list[Place] = [await enter(tree, await tree.root())]  # from the top to here
    names = deque(_names(path))
    symlinks = 0
    while names:
        name = names.popleft()
        here, directory = walked[-1]
        if not directory.is_directory:
            raise FileError(errno.ENOTDIR, path)
        if name == b"..":
            del walked[max(1, len(walked) - 1) :]
            continue
        entry = await child(here, directory, name, path)
        if not entry.is_symlink or not (names or follow):
            walked.append(await enter(here, entry))
            continue
        symlinks += 1
        if symlinks > SYMLINKS_MAX:
            raise FileError(errno.ELOOP, path)
        names.extendleft(reversed(_target(entry, path)))
    return walked[-1]


def _names(path: bytes) -> list[bytes]:
    return [name for name in path.split(b"/") if name not in (b"", b".")]


def _target(entry: Entry, path: bytes) -> list[bytes]:
    target = entry.target or b""
    if target.startswith(b"/"):
        raise FileError(errno.ENOENT, path, "a symlink on the way leads out of the tree")
    return _names(target)

"""One directory of a tree as a tree of its own: what `backgate mount TARGET:PATH` shows."""

from typing import Any, cast

import trio

from backgate.fs.tree import Entry, Tree


def subtree(tree: Tree, directory: Entry) -> Tree:
    """Return `tree` with `directory` as its root; it is writable when `tree` is."""
    return cast(Tree, _Subtree(tree, directory))


class _Subtree:
    """Everything but the root is the tree's own: entries mean the same from wherever one looks."""

    def __init__(self, tree: Tree, directory: Entry) -> None:
        self._tree, self._directory = tree, directory

    async def root(self) -> Entry:
        await trio.lowlevel.checkpoint()
        return self._directory.named(b"")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tree, name)

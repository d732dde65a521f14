"""Have the kernel ask again for attributes of files that were found to have changed in the store.

It may keep what it was told for some seconds. What is changed through the mount it knows by itself;
of everything else only the gateway can tell it. Names are left to their age: to forget one the
kernel waits for whoever looks into its directory, and that may be somebody who waits for us.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

from backgate.fs.inodes import Directory, Inode, Inodes

Path = Sequence[bytes]  # names, from the top of the mount
Changed = Callable[[], Awaitable[Iterable[Path]]]  # returns when there are some, with all of them
Invalidate = Callable[[int], None]  # the number of an inode; does not block


class Outdated:
    """Follows `changed` for as long as it runs."""

    def __init__(self, inodes: Inodes, invalidate: Invalidate, changed: Changed) -> None:
        self._inodes, self._invalidate, self._changed = inodes, invalidate, changed

    async def run(self) -> None:
        """Tell the kernel of every change, until cancelled."""
        while True:
            for path in await self._changed():
                inode = self._known(path)
                if inode is not None and inode.opened is None:
                    with suppress(OSError):  # it has forgotten it just now
                        self._invalidate(inode.number)

    def _known(self, path: Path) -> Inode | None:
        """Return what the kernel knows at `path`."""
        inode: Inode | None = self._inodes.root
        for name in path:
            if not isinstance(inode, Directory):
                return None
            inode = inode.children.get(name)
        return inode

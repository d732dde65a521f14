"""Have the kernel ask again for names that were found to mean something else in the store.

It may keep what it was told for some seconds, and keeps names that were not there as well. What is
changed through the mount it knows by itself; of everything else only the gateway can tell it.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence

from backgate.fs.forgetting import Forgetting
from backgate.fs.inodes import Directory, Inodes

Path = Sequence[bytes]  # names, from the top of the mount
Changed = Callable[[], Awaitable[Iterable[Path]]]  # returns when there are some, with all of them

MANY = 1_000  # names; what changes more at once is left to its age


class Outdated:
    """Follows `changed` for as long as it runs."""

    def __init__(self, inodes: Inodes, forgetting: Forgetting, changed: Changed) -> None:
        self._inodes, self._forgetting, self._changed = inodes, forgetting, changed

    async def run(self) -> None:
        """Tell the kernel of every change, until cancelled."""
        while True:
            paths = await self._changed()
            names = {name for path in paths if (name := self._kept(path)) is not None}
            await self._forgetting.forget(list(names)[:MANY])

    def _kept(self, path: Path) -> tuple[int, bytes] | None:
        """Return the name on `path` that the kernel may keep, and the number of its directory.

        It is the last one, or the first that the gateway never told it of: that may be known not
        to be there.
        """
        directory = self._inodes.root
        for name in path[:-1]:
            inode = directory.children.get(name)
            if not isinstance(inode, Directory):
                return directory.number, name
            directory = inode
        return (directory.number, path[-1]) if path else None

"""How much memory the tables of images may take: of one backup's disks, and of all that are open.

Each table is kept whole for as long as its disk is open: 64 KiB for each image of a disk of 1 TiB.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from backgate.gateway.units import GIB, MIB

TABLES_MAX = 256 * MIB  # bytes for one backup
ALL_MAX = GIB  # bytes for all that are open


class Tables:
    """What the tables of all open disks of a format take together."""

    def __init__(self) -> None:
        self._held = 0  # bytes

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """Provide the room for one backup's disks; it is given back when the context ends."""
        share = Share(self)
        try:
            yield share
        finally:
            share.empty()

    def grow(self, more: int) -> bool:
        """Take so many more bytes, or fewer; False, and nothing is taken, if there is no room."""
        if more > 0 and self._held + more > ALL_MAX:
            return False
        self._held += more
        return True


class Share:
    """What the disks of one backup take, by their keys."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._held: dict[str, int] = {}

    def hold(self, key: str, size: int) -> bool:
        """Note that the tables of a disk take `size` bytes now; False if there is no room."""
        more = size - self._held.get(key, 0)
        is_much = more > 0 and sum(self._held.values()) + more > TABLES_MAX
        if is_much or not self._tables.grow(more):
            return False
        self._held[key] = size
        return True

    def empty(self) -> None:
        """Give everything back."""
        self._tables.grow(-sum(self._held.values()))
        self._held.clear()

"""How much memory the tables of images may take: of one backup's disks, and of all that are open.

Each table is kept whole for as long as its disk is open: 64 KiB for each image of a disk of 1 TiB.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from backgate.gateway.errors import StoreError
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

    def grow(self, more: int) -> None:
        """Take so many more bytes, or fewer; `StoreError`, and nothing taken, without room."""
        if more > 0 and self._held + more > ALL_MAX:
            raise StoreError(
                f"no room for the tables of more images: backups that are open have {self._held} "
                "bytes of them"
            )
        self._held += more


class Share:
    """What the disks of one backup take, by their keys."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._held: dict[str, int] = {}

    def hold(self, key: str, size: int) -> bool:
        """Note that the tables of a disk take `size` bytes now; False if that is too much.

        Raises `StoreError` when other backups leave no room; it may pass.
        """
        more = size - self._held.get(key, 0)
        if more > 0 and sum(self._held.values()) + more > TABLES_MAX:
            return False
        self._tables.grow(more)
        self._held[key] = size
        return True

    def empty(self) -> None:
        """Give everything back."""
        self._tables.grow(-sum(self._held.values()))
        self._held.clear()

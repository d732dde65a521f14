"""Room on the spool's disk: how much of it is used."""

import trio

from backgate.gateway.units import MIB

PRESSED_FROM = 0.5  # of the limit; what was sent without leaving, and stays, is below it
RESERVE = 512 * MIB  # bytes below the limit that suffice for what is leaving, if that is later:
# a part that leaves is sent twice, once by us and once by the store


class Room:
    """The bytes that the files of one spool take on disk, and their limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit  # bytes; fewer while the disk is full
        self.used = 0  # bytes
        self._wanted = limit  # bytes
        self._changed = trio.Event()

    @property
    def is_pressed(self) -> bool:
        """True when parts of growing files should leave the disk."""
        return self.used > self._pressed_from

    @property
    def _pressed_from(self) -> float:
        return max(self.limit * PRESSED_FROM, self.limit - RESERVE)

    def account(self, size: int) -> None:
        """Note that `size` bytes more (or less) are used."""
        self.used += size
        if size < 0:
            if self.used <= self._pressed_from:
                self.limit = self._wanted  # what filled the disk may have gone, too
            self.changed()

    def disk_is_full(self) -> None:
        """Note that the disk holds no more than it does now."""
        self.limit = min(self.limit, self.used)

    def changed(self) -> None:
        """Wake who waits for room: there is more, or something that was to make it has ended."""
        self._changed.set()
        self._changed = trio.Event()

    async def change(self) -> None:
        """Wait until something has changed."""
        await self._changed.wait()

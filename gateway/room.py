"""Room on the spool's disk: how much of it is used."""

import trio

PRESSED_FROM = 0.5  # of the limit; what was sent without leaving, and stays, is below it


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
        return self.used > self.limit * PRESSED_FROM

    def account(self, size: int) -> None:
        """Note that `size` bytes more (or less) are used."""
        self.used += size
        if size < 0:
            if self.used <= self.limit * PRESSED_FROM:
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

"""Have the kernel forget names that nobody used for long, so that the table of inodes stays small.

The kernel forgets on its own only when memory runs short on the machine, and until then every name
it remembers is a record here: a `find` over millions of files would fill this process.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

import trio

from backgate.fs.inodes import Inodes

MANY = 110_000  # inodes from which on some are forgotten; each takes some 500 bytes
ENOUGH = MANY // 2  # inodes that are kept then
TOO_MANY = MANY + MANY // 5  # inodes, beyond which opening a directory waits for some to go
BATCH = 1_000  # names the kernel is asked to forget at a time
PAUSE = 0.01  # seconds in which the kernel's own messages about them arrive
RETRY_AFTER = 5.0  # seconds, when the kernel had all of them in use
WAIT_MAX = 5.0  # seconds; a directory that is opened waits no longer

Invalidate = Callable[[int, bytes], None]  # directory, name; may block


class Forgetting:
    """Keeps one mount's table of inodes small, as far as the kernel lets go."""

    def __init__(
        self, inodes: Inodes, invalidate: Invalidate, is_held_up: Callable[[], bool]
    ) -> None:
        self._inodes, self._invalidate, self._is_held_up = inodes, invalidate, is_held_up
        self._crowded = trio.Event()
        self._shrunk = trio.Event()
        self._asking = trio.Lock()
        self._idle_rounds = 0  # in a row, that found nothing which could be forgotten
        self._is_stopped = False

    async def run(self) -> None:
        """Ask the kernel to forget, whenever it knows too much; until stopped."""
        while not self._is_stopped:
            await self._crowded.wait()
            self._crowded = trio.Event()
            fruitless = 0
            while len(self._inodes) > ENOUGH and not self._is_stopped:
                fruitless = 0 if await self._forget_some() else fruitless + 1
                if self._is_fruitless(fruitless):
                    fruitless = 0
                    await trio.sleep(RETRY_AFTER)

    async def make_room(self) -> None:
        """Return at once, or when the table is small enough again, or shrinks no more."""
        if len(self._inodes) <= MANY:
            return
        self._crowded.set()
        with trio.move_on_after(WAIT_MAX):
            while len(self._inodes) > TOO_MANY and not self._is_fruitless(self._idle_rounds):
                await self.shrunk()

    async def _forget_some(self) -> bool:
        """Return True when at least one inode is gone."""
        before = self._inodes.forgotten
        oldest = self._inodes.oldest(BATCH)
        if oldest:
            self._idle_rounds = 0
            async with self._asking:
                await trio.to_thread.run_sync(self._forget, oldest)
            await trio.sleep(PAUSE)
        else:
            self._idle_rounds += 1
            await trio.lowlevel.checkpoint()
        self._shrunk.set()
        self._shrunk = trio.Event()
        return self._inodes.forgotten > before

    def _is_fruitless(self, rounds: int) -> bool:
        """True when `rounds` that came to nothing have looked at the whole table."""
        return rounds * BATCH > len(self._inodes)

    async def stop(self) -> None:
        """Return once the kernel is asked nothing more."""
        self._is_stopped = True
        self._crowded.set()
        async with self._asking:
            return

    async def shrunk(self) -> None:
        """Return when the kernel was asked to forget once more."""
        await self._shrunk.wait()

    def _forget(self, names: Sequence[tuple[int, bytes]]) -> None:
        """Run in a thread: it waits for whoever has a directory locked, who may wait for us.

        Nothing can end a process that waits so, not even SIGKILL. So the kernel is asked nothing
        while somebody who may have one locked has no answer.
        """
        for directory, name in names:
            if self._is_stopped or self._is_held_up():
                return
            with suppress(OSError):  # the kernel knows it no longer
                self._invalidate(directory, name)

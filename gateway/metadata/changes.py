"""What has changed lately in the index: who waits for news, and who keeps a summary of it."""

from collections import deque
from collections.abc import Iterable, Iterator

import trio

LONGEST = 10_000  # keys remembered; who was away for longer looks through everything again


class News:
    """Lets any number of tasks wait for the next piece of news."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def tell(self) -> None:
        """Wake all who wait."""
        self._event.set()
        self._event = trio.Event()

    async def wait(self) -> None:
        """Return at the next `tell`."""
        await self._event.wait()


class Changes:
    """The number of the latest change, and the keys that the latest ones concerned."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self._keys: deque[tuple[int, bytes, bool]] = deque()  # number, key, whether it is our own
        self._known_since = generation  # changes behind this one are all in `_keys`
        self._news = News()

    def took(
        self, before: int, generation: int, keys: Iterable[bytes], *, is_own: bool = False
    ) -> None:
        """Note the change from `before` to `generation`; one in between was somebody else's.

        An own change tells what this gateway did in the store, any other what was found there.
        """
        if before != self.generation:
            self.lost_track(before)
        if generation <= self.generation:
            return
        self.generation = generation
        self._keys.extend((generation, key, is_own) for key in keys)
        while len(self._keys) > LONGEST:
            self._known_since = max(self._known_since, self._keys.popleft()[0])
        self._news.tell()

    def lost_track(self, generation: int) -> None:
        """Note that unknown keys changed, up to `generation`."""
        self._keys.clear()
        self.generation = max(self.generation, generation)
        self._known_since = self.generation
        self._news.tell()

    def since(self, generation: int) -> set[bytes] | None:
        """Return the keys that changed behind `generation`; None when that is not known."""
        if generation < self._known_since:
            return None
        return {key for key, _ in self._behind(generation)}

    def found_since(self, generation: int) -> set[bytes] | None:
        """Return what was found to have changed in the store; None when that is not known."""
        if generation < self._known_since:
            return None
        return {key for key, is_own in self._behind(generation) if not is_own}

    def spared(self, key: bytes, generation: int, *, with_below: bool = False) -> bool:
        """True when surely nothing behind `generation` concerned `key`: only own changes came.

        What concerns a directory concerns all in it; `with_below`, what is in `key/` matters too.
        """
        below = key + b"/"
        return generation >= self._known_since and all(
            is_own
            and other != key
            and not (other.endswith(b"/") and key.startswith(other))
            and not (with_below and other.startswith(below))
            for other, is_own in self._behind(generation)
        )

    async def wait(self, generation: int) -> None:
        """Return once there has been a change behind `generation`."""
        while self.generation <= generation:
            await self._news.wait()
        await trio.lowlevel.checkpoint_if_cancelled()

    def _behind(self, generation: int) -> Iterator[tuple[bytes, bool]]:
        """The newest first: who follows every change must not look through all that are kept."""
        for number, key, is_own in reversed(self._keys):
            if number <= generation:
                return
            yield key, is_own

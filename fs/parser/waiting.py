"""Who is served next of those that wait for the one worker of a backup.

Bytes that have to be decoded may wait by the dozen, for whoever reads a large file; a look (`ls`,
`stat`, `open`) must not stand behind them all. So looks and bytes take turns.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from backgate.fs.parser.messages import Read, Request, Said


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way; `ended` is set once it has been answered, or will never be."""

    request: Request
    check: Callable[[Said], Any]
    ended: trio.Event = field(default_factory=trio.Event)
    answer: Any = None
    error: Exception | None = None
    is_answered: bool = False


class Waiting:
    """The jobs that nobody has taken up yet."""

    def __init__(self) -> None:
        self._looks: deque[Job] = deque()
        self._bytes: deque[Job] = deque()
        self._come = trio.Event()  # set when there is one
        self._is_turn_of_bytes = False
        self._is_closed = False

    def add(self, job: Job) -> None:
        """Have `job` taken up, or end it without an answer when that is too late."""
        if self._is_closed:
            job.ended.set()
            return
        self._queue_of(job).append(job)
        self._come.set()

    def withdraw(self, job: Job) -> bool:
        """Forget `job`; False when it is waiting no longer."""
        queue = self._queue_of(job)
        if job not in queue:
            return False
        queue.remove(job)
        return True

    def all(self) -> Sequence[Job]:
        """Return what waits."""
        return [*self._looks, *self._bytes]

    async def next(self) -> Job:
        """Return the next one, once there is one; after cancellation none was taken up."""
        await trio.lowlevel.checkpoint()
        while not self._looks and not self._bytes:
            self._come = trio.Event()
            await self._come.wait()
        queue = self._bytes if self._is_turn_of_bytes else self._looks
        queue = queue or self._looks or self._bytes
        self._is_turn_of_bytes = queue is self._looks
        return queue.popleft()

    def close(self) -> None:
        """End all without an answer, and whatever comes."""
        self._is_closed = True
        for job in self.all():
            job.ended.set()

    def _queue_of(self, job: Job) -> deque[Job]:
        return self._bytes if isinstance(job.request, Read) else self._looks

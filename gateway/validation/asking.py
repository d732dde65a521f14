"""One request at a time, timed and counted; what is measured is never retried behind its back."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import trio

from backgate.gateway import threads
from backgate.gateway.counters import Counters
from backgate.gateway.errors import StoreError, Unreachable
from backgate.gateway.provider import Provider
from backgate.gateway.retry import retried

CONNECTIONS = 32  # requests at once, at most
PATIENCE = 120.0  # seconds that a fault is waited out where the answer matters and not the time

WRITES = {"put", "put_part", "copy", "copy_part", "begin_upload", "commit_upload"}
BEGUN = 0.1  # seconds within which a thread that was given a call has begun it

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """How one attempt ended."""

    seconds: float
    value: T | None
    error: StoreError | None

    @property
    def is_overdue(self) -> bool:
        return isinstance(self.error, Overdue)


class Overdue(Unreachable):
    """No answer came within the deadline."""


class Asker:
    """The requests of a validation."""

    def __init__(self, provider: Provider, deadline: float) -> None:
        self.provider = provider
        self.deadline = deadline
        self.requests: Counter[str] = Counter()
        self.counters = Counters(provider.name)
        self._limiter = trio.CapacityLimiter(CONNECTIONS)
        self._changed = threading.Condition()
        self._writing = 0  # writes under way, those that nobody waits for any more included

    async def once(self, verb: str, call: Callable[[], T]) -> Answer[T]:
        """Return what one attempt comes to; an error is part of it."""
        began = time.perf_counter()
        try:
            value = await self._attempt(verb, call)
        except StoreError as error:
            return Answer(time.perf_counter() - began, None, error)
        return Answer(time.perf_counter() - began, value, None)

    async def surely(self, verb: str, call: Callable[[], T]) -> T:
        """Return what `call` returns, faults waited out; raises `StoreError` in the end.

        A listing that does not come within the deadline is not asked for again: it will not come.
        """
        attempt = partial(self._attempt, verb, call)
        if verb == "page":
            attempt = partial(self._page, call)
        return await retried(attempt, patience=PATIENCE, counters=self.counters)

    async def delete(self, keys: Sequence[str]) -> list[str]:
        """Delete a batch of `keys`, faults of single ones waited out; returns what is left."""
        left = list(keys)
        refused: list[str] = []

        def attempt() -> None:
            nonlocal left
            failed = self.provider.delete(left)
            left = [key for key, error in failed.items() if isinstance(error, Unreachable)]
            refused.extend(failed.keys() - set(left))
            if left:
                raise failed[left[0]]

        try:
            await self.surely("delete", attempt)
        except StoreError:
            return [*refused, *left]
        return refused

    async def all_of(self, verb: str, calls: Sequence[Callable[[], T]], at_once: int) -> list[T]:
        """Return what `calls` return, `at_once` of them under way together; as `surely`."""
        results: dict[int, T] = {}
        failed: list[StoreError] = []
        left = iter(enumerate(calls))

        async def work() -> None:
            for number, call in left:
                try:
                    results[number] = await self.surely(verb, call)
                except StoreError as error:
                    failed.append(error)
                if failed:
                    return

        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(work)
        if failed:
            raise failed[0]
        return [results[number] for number in range(len(calls))]

    async def settle(self) -> None:
        """Wait for writes that were cancelled or overdue, which may still take effect.

        Not for longer than the deadline: one that takes longer is found by a later run.
        """
        if not self.provider.is_instant:
            await trio.sleep(BEGUN)
        await trio.to_thread.run_sync(self._wait_for_writes)

    def _wait_for_writes(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._writing == 0, self.deadline)

    def _noted(self, call: Callable[[], T]) -> T:
        with self._changed:
            self._writing += 1
        try:
            return call()
        finally:
            with self._changed:
                self._writing -= 1
                self._changed.notify_all()

    async def _page(self, call: Callable[[], T]) -> T:
        try:
            return await self._attempt("page", call)
        except Overdue as error:
            raise StoreError(str(error)) from error

    async def _attempt(self, verb: str, call: Callable[[], T]) -> T:
        self.requests[verb] += 1
        if self.provider.is_instant:
            await trio.lowlevel.checkpoint()
            return call()
        try:
            noted = partial(self._noted, call) if verb in WRITES else call
            return await threads.call(noted, self._limiter, self.deadline)
        except TimeoutError as error:
            self._limiter.total_tokens += 1  # its thread goes on alone, until its socket gives up
            raise Overdue(f"{self.provider.name}: {verb}: {error}") from error

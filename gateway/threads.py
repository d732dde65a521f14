"""The only way off trio's thread: blocking calls, each under a limiter and with a deadline.

The deadline runs on the machine's clock in a thread of its own, so that it holds whatever clock
trio runs on. A call that is cancelled or overdue is abandoned: nobody waits for it, and its
limiter's token comes back when its socket time-out ends it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Generic, TypeVar

import trio

METADATA_THREADS = 16  # head, page, delete: a crawl with four streams leaves twelve to callers
GET_THREADS = 12  # at 8 MiB each, 96 MiB in flight at most
PUT_THREADS = 8  # put and commit; more uploads at once do not fill a link faster
COPY_THREADS = 8  # copies on the store's side, which take nothing of the link
SMALL_PUT_THREADS = 32  # puts that wait for an answer longer than they send: of small files
CONNECTIONS = (  # to keep open
    METADATA_THREADS + GET_THREADS + PUT_THREADS + COPY_THREADS + SMALL_PUT_THREADS
)

T = TypeVar("T")


async def call(
    function: Callable[[], T],
    limiter: trio.CapacityLimiter,
    limit: float,
    wait: float = threading.TIMEOUT_MAX,
) -> T:
    """Return what the blocking `function` returns, run in a thread under `limiter`.

    Raises `TimeoutError` when it has waited for `limiter` for `wait` seconds, or has run for
    `limit`. After that, and after cancellation, the thread goes on alone and its result is dropped.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    work = _Work(function, limiter, limit)
    try:
        limiter.acquire_on_behalf_of_nowait(work)
    except trio.WouldBlock:
        await _wait_for(limiter, work, wait)
    return await work.done()


@contextmanager
def deadline(seconds: float, ring: Callable[[], None]) -> Iterator[None]:
    """Call `ring`, in a thread of its own, unless the context is left within `seconds`."""
    with _alarms.set(seconds, ring):
        yield


class _Work(Generic[T]):
    """One call in a thread, for one task, which may have given it up.

    `trio.to_thread` does the same for half as much CPU again: it names the thread anew for each
    call, takes one more turn of trio's loop for a limiter that is free, and lets the thread call
    back.
    """

    def __init__(
        self, function: Callable[[], T], limiter: trio.CapacityLimiter, limit: float
    ) -> None:
        self._function, self._limiter, self._limit = function, limiter, limit
        self._token = trio.lowlevel.current_trio_token()
        self._task: trio.lowlevel.Task | None = None  # that waits
        self._is_overdue = False

    async def done(self) -> T:
        """Run it, and return what it returns; it holds its limiter until it has ended."""
        try:
            trio.lowlevel.start_thread_soon(self._run, self._deliver)
        except BaseException:
            self._limiter.release_on_behalf_of(self)
            raise
        self._task = trio.lowlevel.current_task()
        result: T = await trio.lowlevel.wait_task_rescheduled(self._give_up)
        if self._is_overdue:
            raise TimeoutError(f"no answer within {self._limit:.0f} s")
        return result

    def _run(self) -> T:
        with _alarms.set(self._limit, self._ring):
            return self._function()

    def _deliver(self, result: Any) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._ended, result)

    def _ring(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._overdue)

    def _ended(self, result: Any) -> None:
        self._limiter.release_on_behalf_of(self)
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task, result)

    def _overdue(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self._is_overdue = True
            trio.lowlevel.reschedule(task)

    def _give_up(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


async def _wait_for(limiter: trio.CapacityLimiter, work: _Work[T], wait: float) -> None:
    """Return once `work` holds `limiter`; `TimeoutError` after `wait` seconds."""
    scope, token = trio.CancelScope(), trio.lowlevel.current_trio_token()

    def kept_waiting() -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(scope.cancel)

    is_bounded = wait < threading.TIMEOUT_MAX
    with _alarms.set(wait, kept_waiting) if is_bounded else nullcontext(), scope:
        await limiter.acquire_on_behalf_of(work)
        return
    raise TimeoutError(f"other requests kept all threads for {wait:.0f} s")


class _Alarms:
    """Calls back what is not over in time, from one thread that starts when it is first needed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[object, tuple[float, Callable[[], None]]] = {}
        self._wakes_at = 0.0  # monotonic seconds; when the thread looks next
        self._thread: threading.Thread | None = None

    @contextmanager
    def set(self, seconds: float, ring: Callable[[], None]) -> Iterator[None]:
        """Call `ring` unless the context is left within `seconds`."""
        alarm = object()
        at = time.monotonic() + seconds
        with self._changed:
            self._due[alarm] = (at, ring)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._thread.start()
            elif at < self._wakes_at:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._due.pop(alarm, None)

    def _watch(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                rung = [alarm for alarm, (at, _) in self._due.items() if at <= now]
                rings = [self._due.pop(alarm)[1] for alarm in rung]
                if not rings:
                    self._wakes_at = min((at for at, _ in self._due.values()), default=now + 3600)
                    self._changed.wait(self._wakes_at - now)
            for ring in rings:
                ring()


_alarms = _Alarms()

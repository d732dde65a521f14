"""The only way off trio's thread: blocking calls, each under a limiter and with a deadline.

The deadline runs on the machine's clock in a thread of its own, so that it holds whatever clock
trio runs on. A call that is cancelled or overdue is abandoned: nobody waits for it, and its
limiter's token comes back when its socket time-out ends it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TypeVar

import trio

METADATA_THREADS = 16  # head, page, delete: a crawl with four streams leaves twelve to callers
GET_THREADS = 12  # at 8 MiB each, 96 MiB in flight at most
PUT_THREADS = 8  # put, copy and commit; more uploads at once do not fill a link faster
SMALL_PUT_THREADS = 32  # puts that wait for an answer longer than they send: of small files
CONNECTIONS = METADATA_THREADS + GET_THREADS + PUT_THREADS + SMALL_PUT_THREADS  # to keep open

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
    is_full = limiter.available_tokens < 1 and wait < threading.TIMEOUT_MAX
    begun = False
    scope = trio.CancelScope()
    token = trio.lowlevel.current_trio_token()

    def overdue() -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(scope.cancel)

    def run() -> T:
        nonlocal begun
        begun = True
        with _alarms.set(limit, overdue):
            return function()

    def kept_waiting() -> None:
        if not begun:
            overdue()

    with _alarms.set(wait, kept_waiting) if is_full else nullcontext(), scope:
        return await trio.to_thread.run_sync(run, limiter=limiter, abandon_on_cancel=True)
    if begun:
        raise TimeoutError(f"no answer within {limit:.0f} s")
    raise TimeoutError(f"other requests kept all threads for {wait:.0f} s")


@contextmanager
def deadline(seconds: float, ring: Callable[[], None]) -> Iterator[None]:
    """Call `ring`, in a thread of its own, unless the context is left within `seconds`."""
    with _alarms.set(seconds, ring):
        yield


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

"""Wait out what a retry may mend: backoff with jitter, the store's own Retry-After, a last moment.

Only `Unreachable` is retried, and only here.
"""

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from backgate.gateway.counters import Counters
from backgate.gateway.errors import Unreachable

FIRST_PAUSE = 0.2  # seconds; doubles with each attempt
LONGEST_PAUSE = 30.0  # seconds; an outage is noticed to be over within this
LONGEST_ASKED = 300.0  # seconds; a longer Retry-After is a maintenance page's guess

T = TypeVar("T")


async def retried(attempt: Callable[[], Awaitable[T]], *, patience: float, counters: Counters) -> T:
    """Return what `attempt` returns, however often it has to be made.

    Faults are waited out for `patience` seconds from the first one on; then the last `Unreachable`
    is raised. With a patience of 0 there is one attempt. Any other error is raised at once. A store
    that asks for more time than that is asked once more at the end of it.
    """
    try:
        return await attempt()
    except Unreachable as error:
        counters.failed(error)
        if patience <= 0:
            raise
        first = error
    with counters.waiting_out():
        return await _again(attempt, first, patience, counters)


async def _again(
    attempt: Callable[[], Awaitable[T]], error: Unreachable, patience: float, counters: Counters
) -> T:
    until = trio.current_time() + patience
    pause = FIRST_PAUSE
    while True:
        left = until - trio.current_time()
        asked = min(error.retry_after or 0.0, LONGEST_ASKED)
        if left <= 0:
            raise error
        await trio.sleep(min(left, max(asked, random.uniform(pause / 2, pause))))
        pause = min(2 * pause, LONGEST_PAUSE)
        counters.retries += 1
        try:
            return await attempt()
        except Unreachable as again:
            counters.failed(again)
            error = again

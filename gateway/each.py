"""Do the same for each of many, some at a time, and end with the first error alone."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio

from backgate.gateway.errors import BackgateError

T = TypeVar("T")


async def for_each(items: Iterable[T], do: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Return once `do` has ended for all `items`, of which `at_once` are under way at a time.

    After an error of ours or of the system's no more are begun; those under way go on to their
    end, and then the first error is raised.
    """
    limiter = trio.CapacityLimiter(at_once)
    errors: list[BackgateError | OSError] = []

    async def one(item: T) -> None:
        async with limiter:
            if errors:
                return
            try:
                await do(item)
            except (BackgateError, OSError) as error:
                errors.append(error)

    async with trio.open_nursery() as nursery:
        for item in items:
            nursery.start_soon(one, item)
    if errors:
        raise errors[0]

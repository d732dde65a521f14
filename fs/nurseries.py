"""A nursery whose one real error is raised as itself, not as a group of one."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import trio

from backgate.gateway.errors import BackgateError


@asynccontextmanager
async def open_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery; of an exception group, raise the first error of ours that is in it.

    A group with something else in it, such as a cancellation on its way out, is raised as it is.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        found = list(leaves(group))
        if all(isinstance(error, BackgateError) for error in found):
            raise found[0] from None
        raise


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Return the errors of which a group is made; an error alone is its own leaf."""
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in error.exceptions:
        yield from leaves(inner)

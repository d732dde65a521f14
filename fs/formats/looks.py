"""A look at many objects at a time, when a listing must say what each of them is."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio

from backgate.fs.formats.indexes import identity
from backgate.gateway.errors import Damaged, StoreError, Unreachable
from backgate.gateway.provider import ObjectInfo

AT_ONCE = 16  # objects that are looked at together

Seen = TypeVar("Seen")


async def look_at(
    infos: Iterable[ObjectInfo], look: Callable[[ObjectInfo], Awaitable[Seen]]
) -> tuple[dict[str, Seen], dict[str, str], Unreachable | None]:
    """Return what `look` tells of each object by its `identity`, and for the others why it failed.

    When the store cannot be asked the rest is left out, and the error comes with what was seen: an
    object that could not be asked for is not missing.
    """
    waiting = deque(infos)
    seen: dict[str, Seen] = {}
    failed: dict[str, str] = {}
    unreachable: list[Unreachable] = []

    async def look_on() -> None:
        while waiting and not unreachable:
            info = waiting.popleft()
            try:
                seen[identity(info)] = await look(info)
            except Unreachable as error:
                unreachable.append(error)
            except (StoreError, Damaged) as error:
                failed[identity(info)] = str(error)

    async with trio.open_nursery() as nursery:
        for _ in range(min(AT_ONCE, len(waiting))):
            nursery.start_soon(look_on)
    return seen, failed, unreachable[0] if unreachable else None

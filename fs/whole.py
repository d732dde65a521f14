"""Small objects, read whole."""

from typing import Protocol

from backgate.gateway.errors import Damaged
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data, Source


class Sources(Protocol):
    """Who gives an object's bytes."""

    def source(self, info: ObjectInfo) -> Source:
        """Return the object's bytes."""


async def read_whole(objects: Sources, info: ObjectInfo, limit: int) -> Data:
    """Return the object's bytes; `Damaged` if more than `limit`, or fewer than listed."""
    if info.size > limit:
        raise Damaged(info.key, None, f"{info.size} bytes are too many for such a file")
    data = await objects.source(info).read_at(0, info.size)
    if len(data) != info.size:
        raise Damaged(info.key, len(data), f"ends early, {info.size} bytes were listed")
    return data

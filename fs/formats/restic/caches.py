"""The memory that all restic repositories of a store share, divided once."""

from dataclasses import dataclass

from cachetools import LRUCache

from backgate.fs.formats.restic.allowance import Allowance
from backgate.fs.formats.restic.directory import Directory
from backgate.gateway.source import Data


@dataclass(frozen=True, slots=True)
class Caches:
    """Decoded blobs by id. An id is a hash of the content, so repositories cannot disagree."""

    data: "LRUCache[bytes, Data]"
    directories: "LRUCache[bytes, Directory]"
    wanted: Allowance  # bytes of packs being read that somebody waits for
    ahead: Allowance  # bytes of packs being read early
    opening: Allowance  # bytes of plaintext being made of them
    window: int  # bytes fetched ahead of one reader; all of it must fit into `data`

    @classmethod
    def of(cls, memory: int) -> "Caches":
        """Return caches that together take `memory` bytes."""
        return cls(
            data=LRUCache(memory // 4, getsizeof=len),
            directories=LRUCache(memory // 8, getsizeof=lambda directory: directory.weight),
            wanted=Allowance(memory // 4),
            ahead=Allowance(memory // 4),
            opening=Allowance(memory // 8),
            window=memory * 3 // 16,
        )

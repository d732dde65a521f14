"""Names as they were last looked up, for as long as surely nothing has changed what they are.

The kernel asks for a directory again after each name that has come or gone in it, and who makes a
file has just asked whether there is one: without this, each file that is copied or removed would
cost more looks into the index.
"""

import trio
from cachetools import LRUCache

from backgate.gateway.metadata.rows import Subdirectory
from backgate.gateway.repository import Repository

DIRECTORIES = 1000  # kept; some 500 KB
ABSENT = 100  # names kept; as many as are made at a time
ABSENT_FOR = 1.0  # seconds; who makes a name looks for it right before


class KnownNames:
    """Names of one repository; none where somebody else may change it."""

    def __init__(self, repository: Repository) -> None:
        config, self._metadata = repository.config, repository.metadata
        self._is_alone = config.writers == "exclusive" and config.metadata is None
        self._directories: LRUCache[tuple[str, bytes], tuple[int, Subdirectory]]
        self._directories = LRUCache(DIRECTORIES)
        self._absent: LRUCache[str, tuple[int, float]] = LRUCache(ABSENT)

    def directory(self, prefix: str, name: bytes) -> Subdirectory | None:
        """Return what `name` in the directory `prefix` is; None when that has to be looked up."""
        known = self._directories.get((prefix, name))
        if known is None:
            return None
        generation, found = known
        now = self._metadata.generation
        if generation != now:
            if not self._metadata.has_spared(found.prefix, generation):
                del self._directories[prefix, name]
                return None
            self._directories[prefix, name] = now, found
        return found

    def keep_directory(
        self, prefix: str, name: bytes, generation: int, found: Subdirectory
    ) -> None:
        """Keep what a look into the index found that began at `generation`."""
        if self._is_alone and found.attributes is not None:
            self._directories[prefix, name] = generation, found

    def is_absent(self, key: str) -> bool:
        """True when it was just seen that there is neither `key` nor anything below it."""
        generation, until = self._absent.get(key, (0, 0.0))
        return trio.current_time() < until and self._metadata.has_spared(
            key, generation, with_below=True
        )

    def keep_absent(self, key: str, generation: int) -> None:
        """Keep that a look which began at `generation` found neither `key` nor anything below."""
        if self._is_alone:
            self._absent[key] = generation, trio.current_time() + ABSENT_FOR

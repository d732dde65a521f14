"""Directories as they were last looked up, for as long as surely nothing has changed them.

The kernel asks for a directory again after each name that has come or gone in it: without this,
every file that is made or removed would cost one more look into the index.
"""

from cachetools import LRUCache

from backgate.gateway.metadata.cache import Metadata
from backgate.gateway.metadata.rows import Subdirectory

KEPT = 1000  # directories; some 500 KB


class KnownDirectories:
    """Directories of one repository, where nobody else changes it: by the prefix and name asked."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._known: LRUCache[tuple[str, bytes], tuple[int, Subdirectory]] = LRUCache(KEPT)

    def get(self, prefix: str, name: bytes) -> Subdirectory | None:
        """Return what `name` in the directory `prefix` is; None when that has to be looked up."""
        known = self._known.get((prefix, name))
        if known is None:
            return None
        generation, found = known
        now = self._metadata.generation
        if generation != now:
            if not self._metadata.has_spared(found.prefix, generation):
                del self._known[prefix, name]
                return None
            self._known[prefix, name] = now, found
        return found

    def put(self, prefix: str, name: bytes, generation: int, found: Subdirectory) -> None:
        """Keep what was found by a look into the index that began at `generation`."""
        self._known[prefix, name] = generation, found

"""Pages of names as they were last told, for whoever lists again: a few bytes for each name.

A page is good for one state of the index; when that has changed, all are forgotten.
"""

from dataclasses import dataclass

from cachetools import LRUCache

from backgate.fs.tree import Entry, Names

KEPT = 32 * 1024 * 1024  # bytes of names; a million of them, or more
OVERHEAD = 300  # bytes that a page takes beside its names
ENTRY = 800  # bytes that an entry takes
BETWEEN = b"/"  # no name holds it


@dataclass(frozen=True, slots=True)
class _Page:
    names: bytes  # with nothing in the places of entries
    entries: tuple[tuple[int, Entry], ...]  # with their places
    cursor: bytes | None

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.names) + ENTRY * len(self.entries)


class NamePages:
    """Pages of any directories, by prefix and cursor."""

    def __init__(self) -> None:
        self._generation = -1
        self._pages: LRUCache[tuple[str, bytes | None], _Page]
        self._pages = LRUCache(KEPT, getsizeof=lambda page: page.size)

    def get(self, generation: int, prefix: str, cursor: bytes | None) -> Names | None:
        """Return a page as it was told when the index was in the state `generation`."""
        page = self._pages.get((prefix, cursor)) if generation == self._generation else None
        if page is None:
            return None
        names: list[Entry | bytes] = list(page.names.split(BETWEEN)) if page.names else [b""]
        for place, entry in page.entries:
            names[place] = entry
        return Names(names, page.cursor)

    def put(self, generation: int, prefix: str, cursor: bytes | None, told: Names) -> None:
        """Keep a page that was told of the state `generation`."""
        if generation != self._generation:
            self._pages.clear()
            self._generation = generation
        if not told.entries:
            return
        names = BETWEEN.join(one if isinstance(one, bytes) else b"" for one in told.entries)
        entries = tuple(
            (place, one) for place, one in enumerate(told.entries) if not isinstance(one, bytes)
        )
        page = _Page(names, entries, told.cursor)
        if page.size <= KEPT:
            self._pages[prefix, cursor] = page

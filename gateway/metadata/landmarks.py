"""Which keys of the index are landmarks: found by one look through it, then kept up to date."""

from collections.abc import Callable, Iterator

from backgate.gateway.metadata import names, spans
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.index import Index
from backgate.gateway.metadata.rows import OBJECT, known
from backgate.gateway.provider import ObjectInfo

READ = 10_000  # keys at a time
KEPT = 16  # questions; each format asks one

IsLandmark = Callable[[str], bool]


class _Found:
    def __init__(self, generation: int, objects: dict[bytes, ObjectInfo]) -> None:
        self.generation, self.objects = generation, objects


class Landmarks:
    """Remembers which objects of an index have a key for which a function is true."""

    def __init__(self) -> None:
        self._found: dict[IsLandmark, _Found] = {}

    async def objects(self, index: Index, is_landmark: IsLandmark) -> list[ObjectInfo]:
        """Return the landmarks among all objects that `index` has, ascending by key."""
        found = self._found.get(is_landmark)
        changed = None if found is None else index.changes.since(found.generation)
        if found is None or changed is None:
            generation = index.generation
            objects = await index.read_behind(_scan, is_landmark)
            found = self._found[is_landmark] = _Found(generation, objects)
            while len(self._found) > KEPT:
                del self._found[next(iter(self._found))]
            changed = index.changes.since(generation)
        if changed is not None:  # else so much has changed while it was looked through: next time
            found.generation = index.generation
            for key in changed:
                await _update(index, found, key, is_landmark)
        return [found.objects[key] for key in sorted(found.objects)]


async def _update(index: Index, found: _Found, key: bytes, is_landmark: IsLandmark) -> None:
    if not is_landmark(spans.decoded(key)):
        return
    one = await index.read(names.object_at, key)
    if one is not None:
        found.objects[key] = one.info
    else:
        found.objects.pop(key, None)


def _scan(db: Database, is_landmark: IsLandmark) -> dict[bytes, ObjectInfo]:
    wanted = [key for key in _keys(db) if is_landmark(spans.decoded(key))]
    found: dict[bytes, ObjectInfo] = {}
    for key in wanted:
        row = db.execute(f"SELECT {OBJECT} FROM object WHERE key = ?", (key,)).fetchone()
        if row is not None:
            found[key] = known(row).info
    return found


def _keys(db: Database) -> Iterator[bytes]:
    """Yield all keys, ascending, a part at a time: a database sends whatever it is asked for."""
    at: bytes = spans.FIRST
    while True:
        rows = db.execute("SELECT key FROM object WHERE key >= ? ORDER BY key LIMIT ?", (at, READ))
        keys = [key for (key,) in rows]
        yield from keys
        if len(keys) < READ:
            return
        at = spans.successor(keys[-1])

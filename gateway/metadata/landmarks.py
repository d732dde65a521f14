"""Which keys of the index are landmarks: found by one look through it, then kept up to date."""

from collections.abc import Callable

from backgate.gateway.metadata import names, spans
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.index import Index
from backgate.gateway.metadata.rows import OBJECT, known
from backgate.gateway.provider import ObjectInfo

KEPT = 16  # questions; each format asks one

IsLandmark = Callable[[str], bool]


class _Found:
    def __init__(self, generation: int, objects: dict[bytes, ObjectInfo]) -> None:
        self.generation, self.objects = generation, objects


class Landmarks:
    """Answers which objects of `index` have a key for which a function is true."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._found: dict[IsLandmark, _Found] = {}

    async def objects(self, is_landmark: IsLandmark) -> list[ObjectInfo]:
        """Return the landmarks among all objects that the index has, ascending by key."""
        found = self._found.get(is_landmark)
        changed = None if found is None else self._index.changes.since(found.generation)
        if found is None or changed is None:
            generation = self._index.generation
            objects = await self._index.read_behind(_scan, is_landmark)
            found = self._found[is_landmark] = _Found(generation, objects)
            while len(self._found) > KEPT:
                del self._found[next(iter(self._found))]
            changed = self._index.changes.since(generation)
        if changed is not None:  # else so much has changed while it was looked through: next time
            found.generation = self._index.generation
            for key in changed:
                await self._update(found, key, is_landmark)
        return [found.objects[key] for key in sorted(found.objects)]

    async def _update(self, found: _Found, key: bytes, is_landmark: IsLandmark) -> None:
        if not is_landmark(spans.decoded(key)):
            return
        one = await self._index.read(names.object_at, key)
        if one is not None:
            found.objects[key] = one.info
        else:
            found.objects.pop(key, None)


def _scan(db: Database, is_landmark: IsLandmark) -> dict[bytes, ObjectInfo]:
    wanted = (key for (key,) in db.execute("SELECT key FROM object") if _is_one(key, is_landmark))
    found: dict[bytes, ObjectInfo] = {}
    for key in list(wanted):
        row = db.execute(f"SELECT {OBJECT} FROM object WHERE key = ?", (key,)).fetchone()
        if row is not None:
            found[key] = known(row).info
    return found


def _is_one(key: bytes, is_landmark: IsLandmark) -> bool:
    return is_landmark(spans.decoded(key))

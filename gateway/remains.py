"""What a crash has left of a rename, as the store has it now: other gateways went on meanwhile.

The journal knows the names, not what lay under them. So a copy is known by what copies keep: size
and metadata, and the etag where that is of the content. What is no copy is somebody else's, and
stays.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from backgate.gateway.attributes import Attributes, metadata_with
from backgate.gateway.each import for_each
from backgate.gateway.errors import NotFound
from backgate.gateway.moves import purpose_of
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.records import Move
from backgate.gateway.store import ObjectStore
from backgate.gateway.taking import MARK, Taking

LOOKS_AT_ONCE = 16  # of two requests each


@dataclass(frozen=True, slots=True)
class Renamed:
    """An object to be renamed, as the index knows it."""

    info: ObjectInfo
    attributes: Attributes | None
    target: str


@dataclass(frozen=True, slots=True)
class Remains:
    """What there is of a rename, by key of the original."""

    originals: dict[str, ObjectInfo] = field(default_factory=dict)
    copies: dict[str, ObjectInfo] = field(default_factory=dict)  # of originals as they are now
    strange: set[str] = field(default_factory=set)  # keys of the target that hold something else

    def done_with(self) -> dict[str, ObjectInfo]:
        """Return the originals that were there before their copies, by the store's clock.

        The marker of a directory is none while something stays in it.
        """
        done = {
            key: info
            for key, info in self.originals.items()
            if key in self.copies and info.mtime_ns <= self.copies[key].mtime_ns
        }
        stay = self.originals.keys() - done.keys()
        return {
            key: info
            for key, info in done.items()
            if not (key.endswith("/") and any(one.startswith(key) for one in stay))
        }


class Looking:
    """Looks at both ends of a rename; all that it says was so a moment ago."""

    def __init__(self, store: ObjectStore, taking: Taking) -> None:
        self._store, self._taking = store, taking

    async def remains(self, move: Move, objects: Iterable[Renamed]) -> Remains:
        """Return what is there of `objects`, and of their copies; raises `StoreError`."""
        found = Remains()

        async def look(one: Renamed) -> None:
            await self._look(move, one, found)

        await for_each(objects, look, LOOKS_AT_ONCE)
        return found

    async def stranger(self, target: str, ours: set[str]) -> str | None:
        """Return a key below the directory `target` that is none of `ours`, if there is one."""
        token: str | None = None
        while True:
            page = await self._store.page(target, token=token)
            for info in page.objects:
                is_above = info.key.endswith("/") and any(key.startswith(info.key) for key in ours)
                if info.key not in ours and not is_above:
                    return info.key
            token = page.token
            if token is None:
                return None

    async def _look(self, move: Move, one: Renamed, found: Remains) -> None:
        original = await self._head(one.info.key)
        if original is None:
            return
        found.originals[original.key] = original
        copy = await self._head(one.target)
        is_taken = copy is not None and self._taking.is_taken(copy, purpose_of(move))
        is_copy = copy is not None and self._is_copy(one, original, copy)
        if move.is_directory and one.target == move.target:
            is_decided = self._taking.asks_store and self._is_certain(one.target)
            is_strange = is_decided and not (is_taken or is_copy)  # also when it is gone
        else:
            is_strange = copy is not None and not (is_taken or is_copy)
        if is_strange:
            found.strange.add(one.target)
        elif copy is not None and is_copy and (move.is_copied or not is_taken):
            found.copies[original.key] = copy

    def _is_certain(self, key: str) -> bool:
        """True where the store keeps what is put under `key`, and tells it from a directory."""
        return not key.endswith("/") or self._store.abilities.markers_are_objects

    def _is_copy(self, one: Renamed, original: ObjectInfo, copy: ObjectInfo) -> bool:
        if not self._is_certain(copy.key):
            return True
        kept = original.metadata or {}
        told = [kept] if one.attributes is None else [kept, metadata_with(kept, one.attributes)]
        is_alike = copy.size == original.size and _unmarked(copy.metadata) in map(_unmarked, told)
        etags = (original.etag, copy.etag)
        is_content = self._store.abilities.etags_are_md5 and not any("-" in one for one in etags)
        return is_alike and (not is_content or etags[0] == etags[1])

    async def _head(self, key: str) -> ObjectInfo | None:
        try:
            return await self._store.head(key)
        except NotFound:
            return None


def _unmarked(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return `metadata` without what says for whom a name was taken."""
    return {name: text for name, text in (metadata or {}).items() if name != MARK}

"""What a rename does to objects: all copies are made, then the originals are deleted.

Where others write too and the store can tell versions apart, an original is deleted only if it is
what was copied.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial

from backgate.gateway.copies import Copies
from backgate.gateway.deletions import still
from backgate.gateway.each import for_each
from backgate.gateway.errors import BackgateError, NotFound, Replaced, StoreError
from backgate.gateway.metadata.cache import Metadata
from backgate.gateway.moves import purpose_of
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.records import Move
from backgate.gateway.remains import Remains, Renamed
from backgate.gateway.store import ObjectStore
from backgate.gateway.taking import Taking

COPIES_AT_ONCE = 16  # objects of one directory
UNDO_PATIENCE = 30.0  # seconds; the store has just failed for as long as it may

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Copied:
    """What there was to rename, and what the store says of the copies, by key of the original."""

    move: Move
    objects: list[Renamed]
    infos: dict[str, ObjectInfo] = field(default_factory=dict)
    originals: dict[str, ObjectInfo] = field(default_factory=dict)  # to be deleted


class Transfers:
    """Copies and deletes the objects of renames."""

    def __init__(
        self, store: ObjectStore, metadata: Metadata, copies: Copies, taking: Taking
    ) -> None:
        self._store, self._metadata = store, metadata
        self._copies, self._taking = copies, taking
        self._is_exact = taking.is_shared and store.abilities.conditional_delete

    async def objects(self, source: str, target: str) -> list[Renamed]:
        """Return what there is to rename; what a crash let go already is not there any more."""
        if not source.endswith("/"):
            try:
                known = await self._metadata.settled(source)
            except NotFound:
                return []
            return [Renamed(known.info, known.attributes, target)]
        objects: list[Renamed] = []
        after = ""
        while infos := await self._metadata.below(source, after):
            for info in infos:
                known = await self._metadata.look_up(info.key)
                to = target + info.key.removeprefix(source)
                objects.append(Renamed(known.info, known.attributes, to))
            after = infos[-1].key
        return objects

    async def copied(
        self,
        move: Move,
        *,
        is_marked: bool = False,
        is_resumed: bool = False,
        remains: Remains | None = None,
    ) -> Copied:
        """Copy all that there is to rename; when something cannot be, nothing is left of it.

        With `is_marked` the marker of the new directory keeps the mark of who took its name: so
        one that has to be given back is known, whatever became of the attempt to make it. Of what
        `is_resumed` only copies are taken back that are known as such: the original of another may
        be gone. What there is of `remains` is not copied again.
        """
        copied = Copied(move, await self.objects(move.source, move.target))
        if remains is not None:
            copied.infos.update(remains.copies)
            copied.originals.update(remains.originals)
        is_new = move.is_directory and not is_marked and not await self._is_known(move.target)
        made = {one.target for one in copied.objects if one.info.key in copied.infos}  # or may be

        async def copy(one: Renamed) -> None:
            if one.info.key in copied.infos:
                return
            if not is_resumed:
                made.add(one.target)
            try:
                one = await self._current(one)
                copied.originals[one.info.key] = one.info
                copied.infos[one.info.key] = await self._copy(one, move, is_marked=is_marked)
                made.add(one.target)
            except NotFound:
                made.discard(one.target)
                copied.originals.pop(one.info.key, None)
                log.debug("%r is not there any more", one.info.key)

        try:  # those under way end first: what is taken back must be there, or not come
            await for_each(copied.objects, copy, COPIES_AT_ONCE)
        except (BackgateError, OSError):
            await self.undo(made if is_new else made - {move.target}, copied)
            raise
        return copied

    async def undo(self, keys: Collection[str], copied: Copied) -> None:
        """Delete copies, those that another has replaced meanwhile excepted."""
        etags = {one.key: one.etag for one in copied.infos.values() if self._is_versioned(one.key)}
        store = self._store.patient(UNDO_PATIENCE)
        try:
            failed = await store.delete(
                sorted(keys, reverse=True), etags=etags if self._is_exact else {}
            )
        except StoreError as error:
            failed = dict.fromkeys(keys, error)
        left = [key for key, reason in failed.items() if not isinstance(reason, Replaced)]
        if left:
            log.warning("a rename failed; %d of its copies may stay, as %r", len(left), min(left))

    async def delete(self, move: Move, copied: Copied) -> list[str]:
        """Delete the originals; return the keys of those that are something else by now."""
        originals = copied.originals
        keys = sorted(originals, reverse=True)  # some stores keep a directory that is not empty yet
        known = originals if self._taking.is_shared else {}
        etags = {key: info.etag for key, info in originals.items() if self._is_versioned(key)}
        look = partial(still, self._store, known)
        try:
            failed = await self._store.delete(keys, look, etags if self._is_exact else {})
        except StoreError as error:
            failed = dict.fromkeys(keys, error)
        gone = [one.info.key for one in copied.objects if one.info.key not in copied.infos]
        await self._metadata.removed([*gone, *(key for key in keys if key not in failed)])
        kept = [key for key, reason in failed.items() if isinstance(reason, Replaced)]
        left = {key: reason for key, reason in failed.items() if key not in kept}
        for key, reason in left.items():
            text = (
                f"{move.source!r} was copied to {move.target!r}, and {len(left)} of {len(keys)}"
                f" originals could not be deleted: {reason}"
            )
            raise (type(reason) if isinstance(reason, StoreError) else StoreError)(text, key=key)
        return kept

    async def _current(self, one: Renamed) -> Renamed:
        """Return an object as it is now, where it can be deleted only if it is that still."""
        if not self._is_exact or not self._is_versioned(one.info.key):
            return one
        info = await self._store.head(one.info.key)
        is_same = (info.etag, info.size) == (one.info.etag, one.info.size)
        return Renamed(info, one.attributes if is_same else None, one.target)

    def _is_versioned(self, key: str) -> bool:
        return not key.endswith("/") or self._store.abilities.markers_are_objects

    async def _copy(self, one: Renamed, move: Move, *, is_marked: bool) -> ObjectInfo:
        is_marker = move.is_directory and one.target == move.target and not one.info.size
        if not (is_marked and is_marker):
            return await self._copies.copy(one.info, one.attributes, one.target)
        kept = (await self._store.head(one.info.key)).metadata or {}
        marked = self._taking.marked(kept, purpose_of(move))
        return await self._store.put(one.target, b"", marked)

    async def _is_known(self, key: str) -> bool:
        try:
            await self._metadata.look_up(key)
        except NotFound:
            return False
        return True

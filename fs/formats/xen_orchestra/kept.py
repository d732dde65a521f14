"""The objects of one backup's disk, for as long as the backup is kept.

Xen Orchestra merges younger images into the oldest of a chain once no backup needs the disk as it
was: it deletes the backup's metadata first, then writes a state file, then moves blocks in. An
object that was stored before the metadata is therefore the backup's own. Of any other version,
what is asked of the store after that version was known decides; only then is a byte of it read.
"""

from collections.abc import Sequence
from contextlib import suppress

import trio

from backgate.fs.formats.xen_orchestra.merges import state_key
from backgate.fs.formats.xen_orchestra.remote import Remote
from backgate.gateway.errors import Damaged, NotFound, StoreError
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data, Source
from backgate.gateway.units import SECOND_NS

MARGIN_NS = 2 * SECOND_NS  # times are told to the second, and by a share on FAT to two
LOOK_EVERY = 20.0  # seconds between two looks whatever times say: clocks can be set back
LOOK_PATIENCE = 2.0  # seconds for those
GIVEN_UP = "its backup was deleted, and younger ones are being merged into its disk, or were"


class Kept:
    """`fs.disk.Files` of the disk `key` of the backup that the object `announced` stands for.

    An object that may hold what a younger backup has is `Damaged`; `StoreError` when nobody can
    say.
    """

    def __init__(self, remote: Remote, key: str, announced: ObjectInfo) -> None:
        self.workers = remote.workers
        self._remote, self._key, self._announced = remote, key, announced
        self._images: Sequence[str] = ()  # keys, once they are known
        self._looking = trio.Lock()
        self._begun = self._ended = 0  # looks; the number of the last that ended well
        self._looked = trio.current_time()

    async def info(self, key: str) -> ObjectInfo:
        """Return the object `key`, or raise `NotFound`."""
        return await self._sure(await self._remote.info(key))

    async def renewed(self, key: str) -> ObjectInfo:
        """Return the object `key` as the store has it now, or raise `NotFound`, `StoreError`."""
        return await self._sure(await self._remote.renewed(key))

    def source(self, info: ObjectInfo) -> Source:
        return self._remote.source(info)

    def opened(self, key: str, stored: Data) -> Data:
        return self._remote.opened(key, stored)

    def follow(self, images: Sequence[str]) -> None:
        """From now on these keys are the images of the disk."""
        self._images = images

    async def require(self) -> None:
        """Return when all that was known before was the backup's own; one look serves many."""
        begun = self._begun
        async with self._looking:
            if self._ended > begun:  # a look that began after we asked
                return
            self._begun += 1
            await self._look()
            self._ended, self._looked = self._begun, trio.current_time()

    async def _sure(self, info: ObjectInfo) -> ObjectInfo:
        if info.mtime_ns + MARGIN_NS > self._announced.mtime_ns:
            await self.require()
        elif trio.current_time() >= self._looked + LOOK_EVERY:
            self._looked = trio.current_time()
            with trio.move_on_after(LOOK_PATIENCE), suppress(StoreError):  # else the next time
                await self.require()
        return info

    async def _look(self) -> None:
        if await self._is_there(self._announced.key):
            return
        # Between the first state of a merge and its last this disk is deleted: so in this order.
        for image in self._images:
            if await self._is_there(state_key(image)):
                raise Damaged(self._key, None, GIVEN_UP)
        is_there = await self._is_there(self._key) or await self._is_there(f"{self._key}/header")
        if not self._images or not is_there:
            raise Damaged(self._key, None, GIVEN_UP)

    async def _is_there(self, key: str) -> bool:
        try:
            await self._remote.renewed(key)
        except NotFound:
            return False
        return True

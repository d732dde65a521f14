"""Where blobs lie, kept up to date: the index of a repository and the listing behind it."""

from collections.abc import Iterable
from pathlib import Path

import trio

from backgate.fs.format import Objects
from backgate.fs.formats.restic.crypto import Opener
from backgate.fs.formats.restic.documents import HEX_ID, id_from_hex
from backgate.fs.formats.restic.index import BlobIndex
from backgate.fs.formats.restic.layout import is_landmark
from backgate.fs.formats.restic.segment import Location
from backgate.fs.formats.restic.unpacked import read_sealed
from backgate.gateway.errors import Damaged, NotFound
from backgate.gateway.provider import ObjectInfo

RELIST_AFTER = 10.0  # seconds: a backup with many missing blobs must not list for each of them


class Located:
    """Finds blobs; reads the index files anew when one is unknown or its pack has gone."""

    def __init__(
        self,
        objects: Objects,
        where: str,
        directory: Path,
        opener: Opener,
        workers: trio.CapacityLimiter,
    ) -> None:
        self._objects, self._where, self._opener = objects, where, opener
        self._workers = workers
        self._infos: dict[bytes, ObjectInfo] = {}
        self._index = BlobIndex(where, directory, self._load, workers)
        self._listed_at = -RELIST_AFTER
        self._renewing = trio.Lock()
        self.generation = 0

    def find(self, blob: bytes) -> list[Location]:
        """Return every known place of `blob`."""
        return self._index.find(blob)

    async def know(self, infos: Iterable[ObjectInfo]) -> None:
        """Use these index files. What is damaged or gone is passed over; `StoreError`."""
        async with self._renewing:
            await self._know(infos)

    async def _know(self, infos: Iterable[ObjectInfo]) -> None:
        self._infos = {id_from_hex(info.key.rpartition("/")[2]): info for info in infos}
        before = self._index.ids
        await self._index.update(self._infos.keys())
        if self._index.ids != before:
            self.generation += 1

    async def renew(self, generation: int) -> bool:
        """List and read the index anew, unless that was just done; True when it is newer then."""
        async with self._renewing:
            is_due = trio.current_time() - self._listed_at >= RELIST_AFTER
            if self.generation == generation and is_due:
                await self._know(await self._listed())
                self._listed_at = trio.current_time()
        return self.generation != generation

    def why_unknown(self, blob: bytes) -> Damaged:
        """Return the error for a blob that no index file knows."""
        reason = f"no index file knows blob {blob.hex()[:16]}"
        if self._index.damaged:
            reason += f"; {len(self._index.damaged)} index files are damaged"
        return Damaged(f"{self._where}index/", None, reason)

    async def _listed(self) -> list[ObjectInfo]:
        prefix, found = f"{self._where}index/", list[ObjectInfo]()
        await self._objects.confirm(prefix)
        after = ""
        while page := await self._objects.below(prefix, after):
            found += [info for info in page if is_landmark(info.key)]
            after = page[-1].key
        return [info for info in found if len(info.key) == len(prefix) + HEX_ID]

    async def _load(self, index_id: bytes) -> bytes:
        info = self._infos.get(index_id)
        if info is None:
            raise NotFound(f"{self._where}index/{index_id.hex()}: no longer listed")
        return await read_sealed(self._objects, info, self._opener, self._workers)

"""Disk images in a repository, each shown as its disk and the files on it."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from cachetools import LRUCache

from backgate.fs.backup_disks import NamedDisk
from backgate.fs.disk_tree import open_disks
from backgate.fs.disks.images import open_vhd
from backgate.fs.disks.keys import BadPath, beside
from backgate.fs.format import Backup, BackupFormat, Surroundings
from backgate.fs.formats.image.kind import SUFFIXES, Kind, is_image, kind_of
from backgate.fs.formats.image.packed import PackedImages
from backgate.fs.formats.indexes import identity
from backgate.fs.formats.key_paths import paths
from backgate.fs.formats.looks import look_at
from backgate.fs.tree import Tree
from backgate.gateway.errors import Damaged, NotFound, Replaced
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Bytes, Source

VHD = "vhd"
KINDS_MAX = 100_000  # images whose kind is remembered

log = logging.getLogger(__name__)


class ImageFormat(BackupFormat):
    """`image/<key without suffix>/disk.raw` and `partitions/`."""

    name = "image"

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self._packed = PackedImages(surroundings)
        self._kinds: LRUCache[str, Kind] = LRUCache(KINDS_MAX)

    def is_landmark(self, key: str) -> bool:
        return is_image(key)

    async def backups(self, landmarks: Sequence[ObjectInfo]) -> list[Backup]:
        kinds = await self._look(landmarks)
        places = paths((info.key for info in landmarks), SUFFIXES)
        return [
            Backup(
                path=places[info.key],
                key=info.key,
                time_ns=info.mtime_ns,
                size=info.size,
                version=identity(info),
                is_complete=not kind.reason,
                reason=kind.reason,
                notes={"kind": kind.name},
            )
            for info, kind in zip(landmarks, kinds, strict=True)
        ]

    @asynccontextmanager
    async def open(self, backup: Backup) -> AsyncIterator[Tree]:
        info = await self.surroundings.objects.info(backup.key)
        if identity(info) != backup.version:
            raise Replaced(f"{info.key}: another image lies there by now", key=info.key)
        async with self._packed.opened(info) as source:
            kind = await kind_of(info.key, source)
            if kind.reason:
                raise Damaged(info.key, None, kind.reason)
            disk = await self._disk(info, backup.path[-1], source, kind)
            passphrases = self.surroundings.passphrases
            async with open_disks(
                [disk],
                self.surroundings,
                where=info.key,
                passphrases=passphrases,
                is_single=True,
            ) as tree:
                yield tree

    async def _disk(self, info: ObjectInfo, name: str, source: Source, kind: Kind) -> NamedDisk:
        if kind.name == VHD:  # its bytes are found here, without a parser
            again = partial(open_vhd, self.surroundings.objects, info.key, source)
            try:
                chain = await again()
            except Damaged as error:
                log.warning("the disk cannot be read: %s", error)
                return NamedDisk(
                    name=name,
                    source=Bytes(b""),
                    mtime_ns=info.mtime_ns,
                    problem=str(error),
                    again=again,
                )
            return NamedDisk(
                name=name,
                source=chain,
                mtime_ns=info.mtime_ns,
                allocated=chain.allocated,
                notes=chain.notes,
            )
        return NamedDisk(
            name=name,
            source=source,
            mtime_ns=info.mtime_ns,
            kind=kind.name,
            sibling=lambda name: self._beside(info.key, name),
        )

    async def _beside(self, key: str, name: str) -> Source | None:
        """Return the file that an image names; None: there is none in the repository."""
        try:
            info = await self.surroundings.objects.info(beside(key, name))
        except (BadPath, NotFound):
            return None
        return self.surroundings.objects.source(info)

    async def _look(self, landmarks: Sequence[ObjectInfo]) -> list[Kind]:
        """Return the kind of each image; what is not known yet is looked at.

        Raises `Unreachable`: an image that could not be asked for is not missing.
        """
        unknown = (info for info in landmarks if identity(info) not in self._kinds)
        seen, failed, unreachable = await look_at(unknown, self._packed.kind_of)
        self._kinds.update(seen)
        if unreachable is not None:
            raise unreachable
        names = [identity(info) for info in landmarks]
        return [
            self._kinds.get(name) or Kind("unknown", failed.get(name, "not looked at"))
            for name in names
        ]

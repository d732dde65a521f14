"""Xen Orchestra repositories: every completed backup of a VM, its disks readable without a restore.

`xen-orchestra/<where>/<vm>/<time>/disks/<device>-<name>/disk.raw`. A backup is complete if and only
if its metadata exists and what it names is there: Xen Orchestra writes disks first. Nothing is
locked.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from backgate.fs.disks.chunks import Chunks
from backgate.fs.format import Backup, BackupFormat, Count, Surroundings, uncounted
from backgate.fs.formats.xen_orchestra.layout import (
    Layout,
    MetadataLayout,
    VmLayout,
    is_landmark,
    layout_of,
)
from backgate.fs.formats.xen_orchestra.repository import Memory, Repository
from backgate.fs.formats.xen_orchestra.tables import Tables
from backgate.fs.formats.xen_orchestra.xva import Unpacking
from backgate.fs.tree import Tree
from backgate.gateway.errors import NotFound
from backgate.gateway.provider import ObjectInfo

CHUNKS_PART = 2  # half of the memory keeps decoded blocks, the rest unpacks archives


class XenOrchestraFormat(BackupFormat):
    """All Xen Orchestra repositories of a store."""

    name = "xen-orchestra"

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        memory = surroundings.memory_limit // CHUNKS_PART
        unpacking = Unpacking.of(surroundings.memory_limit - memory)
        self._memory = Memory(Chunks(memory), unpacking, Tables())
        self._repositories: dict[str, Repository] = {}
        self._asked: Sequence[ObjectInfo] | None = None
        self._answer: list[Backup] = []  # to that

    def is_landmark(self, key: str) -> bool:
        return is_landmark(key)

    async def backups(self, landmarks: Sequence[ObjectInfo]) -> list[Backup]:
        if landmarks == self._asked and all(one.is_settled for one in self._repositories.values()):
            await trio.lowlevel.checkpoint()  # something else has changed
            return self._answer
        workers = self.surroundings.workers
        layout = await trio.to_thread.run_sync(layout_of, landmarks, limiter=workers)
        wheres = _by_where(layout)
        for where in self._repositories.keys() - wheres.keys():
            del self._repositories[where]
        found: list[Backup] = []
        for where, (vms, configurations) in sorted(wheres.items()):
            if where not in self._repositories:
                self._repositories[where] = self._repository(where)
            found += await self._repositories[where].backups(vms, configurations)
        found.sort(key=lambda backup: (backup.path, backup.key))
        self._asked, self._answer = landmarks, found
        return found

    async def examined(self, backups: Sequence[Backup], count: Count = uncounted) -> list[Backup]:
        found = {(one.path, one.key): one for one in backups}
        for where, repository in self._repositories.items():
            below = [one for one in backups if self._where(one) == where]
            for one in await repository.examined(below, count):
                found[one.path, one.key] = one
        return list(found.values())

    def _where(self, backup: Backup) -> str | None:
        """Return the prefix of the repository that `backup` was found in; None: it is gone."""
        wheres = (one for one in self._repositories if backup.key.startswith(one))
        return max(wheres, key=len, default=None)

    def _repository(self, where: str) -> Repository:
        return Repository(where, self.surroundings, self._memory)

    @asynccontextmanager
    async def open(self, backup: Backup) -> AsyncIterator[Tree]:
        where = self._where(backup)
        if where is None:
            raise NotFound(f"{backup.key}: its repository is gone", key=backup.key)
        async with self._repositories[where].open(backup) as tree:
            yield tree


def _by_where(layout: Layout) -> dict[str, tuple[list[VmLayout], list[MetadataLayout]]]:
    found: dict[str, tuple[list[VmLayout], list[MetadataLayout]]] = {}
    for vm in layout.vms.values():
        found.setdefault(vm.where, ([], []))[0].append(vm)
    for configuration in layout.metadata.values():
        found.setdefault(configuration.where, ([], []))[1].append(configuration)
    return found

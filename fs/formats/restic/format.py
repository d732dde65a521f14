"""restic repositories, versions 1 and 2: every snapshot is a backup.

`restic/<where>/<host>/<time>-<id8>/`. A snapshot is complete if and only if its file exists and
authenticates: restic writes packs, then index, then snapshot. Reading takes no lock.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from backgate.fs.format import Backup, BackupFormat, Surroundings
from backgate.fs.formats.restic.caches import Caches
from backgate.fs.formats.restic.layout import Layout, is_landmark, layouts
from backgate.fs.formats.restic.repository import Repository
from backgate.fs.formats.restic.vault import Vault
from backgate.fs.tree import Tree
from backgate.gateway.errors import NotFound
from backgate.gateway.provider import ObjectInfo

SCRYPTS = 1  # passwords tried at a time; each takes tens of megabytes by design


class ResticFormat(BackupFormat):
    """All restic repositories of a store."""

    name = "restic"

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self._repositories: dict[str, Repository] = {}
        self._caches = Caches.of(surroundings.memory_limit)
        self._scrypts = trio.CapacityLimiter(SCRYPTS)

    def is_landmark(self, key: str) -> bool:
        return is_landmark(key)

    async def backups(self, landmarks: Sequence[ObjectInfo]) -> list[Backup]:
        await trio.lowlevel.checkpoint()
        found: list[Backup] = []
        present = layouts(landmarks)
        for where in self._repositories.keys() - present.keys():
            del self._repositories[where]
        for where, layout in sorted(present.items()):
            if where not in self._repositories:
                self._repositories[where] = self._repository(layout)
            found += await self._repositories[where].backups(layout)
        return sorted(found, key=lambda backup: backup.path)

    @asynccontextmanager
    async def open(self, backup: Backup) -> AsyncIterator[Tree]:
        where = backup.key.rpartition("/")[0].rpartition("/")
        repository = self._repositories.get(where[0] + where[1])
        if repository is None:
            raise NotFound(f"{backup.key}: its repository is gone", key=backup.key)
        async with repository.open(backup) as tree:
            yield tree

    def _repository(self, layout: Layout) -> Repository:
        lent = self.surroundings
        vault = Vault(lent.objects, self._password(layout), self._scrypts)
        return Repository(layout, lent, vault, self._caches)

    def _password(self, layout: Layout) -> bytes | None:
        """The password for one repository: for now one is configured for all of a store."""
        return self.surroundings.secret

"""The disks of one backup, each opened; one that cannot be opened does not keep others from it."""

import logging
from collections.abc import Sequence

import trio

from backgate.fs.disk_tree import NamedDisk
from backgate.fs.formats.xen_orchestra.chains import Chains
from backgate.fs.formats.xen_orchestra.merges import StatesByDirectory
from backgate.fs.formats.xen_orchestra.vms import Disk
from backgate.fs.nurseries import open_nursery
from backgate.gateway.errors import Damaged
from backgate.gateway.source import Data, Source

log = logging.getLogger(__name__)


class BrokenDisk:
    """A disk whose images do not hold together: every read says why."""

    def __init__(self, size: int, error: Damaged) -> None:
        self.size = size
        self.error = error

    async def read_at(self, offset: int, length: int) -> Data:
        """Raise why nothing can be read."""
        await trio.lowlevel.checkpoint()
        raise Damaged(self.error.where, self.error.offset, self.error.reason)


async def open_all(
    chains: Chains, disks: Sequence[Disk], states: StatesByDirectory, mtime_ns: int
) -> list[NamedDisk]:
    """Open all `disks`, in their order; `StoreError` when the store cannot be asked."""
    found: dict[str, NamedDisk] = {}

    async def open_one(disk: Disk) -> None:
        source: Source
        allocated: int | None = None
        try:
            source = chain = await chains.open(disk.key, states)
            allocated, notes = chain.allocated, dict(chain.notes)
        except Damaged as error:
            log.warning("the disk %r cannot be read: %s", disk.name, error)
            source, notes = BrokenDisk(disk.size or 0, error), {"problem": str(error)}
        found[disk.name] = NamedDisk(
            name=disk.name, source=source, mtime_ns=mtime_ns, allocated=allocated, notes=notes
        )

    async with open_nursery() as nursery:
        for disk in disks:
            nursery.start_soon(open_one, disk)
    return [found[disk.name] for disk in disks]

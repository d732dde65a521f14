"""The disks of one backup, each opened; one that cannot be opened does not keep others from it."""

import logging
from collections.abc import Sequence
from functools import partial

from backgate.fs.backup_disks import NamedDisk
from backgate.fs.formats.xen_orchestra.chains import Chains
from backgate.fs.formats.xen_orchestra.layout import VmLayout, stamp_of, time_ns_of
from backgate.fs.formats.xen_orchestra.tables import Share
from backgate.fs.formats.xen_orchestra.vms import Disk
from backgate.fs.nurseries import open_nursery
from backgate.gateway.errors import Damaged
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Bytes

log = logging.getLogger(__name__)


async def open_all(
    chains: Chains, disks: Sequence[Disk], vm: VmLayout, announced: ObjectInfo, share: Share
) -> list[NamedDisk]:
    """Open all `disks` of the backup of `vm` that `announced` stands for, in their order.

    Raises `StoreError` when the store cannot be asked.
    """
    mtime_ns = time_ns_of(stamp_of(announced.key))
    images = [info.key for infos in vm.disks.values() for info in infos]
    found: dict[str, NamedDisk] = {}

    async def open_one(disk: Disk) -> None:
        again = partial(chains.open, disk.key, announced, images, vm.states, share)
        try:
            chain = await again()
        except Damaged as error:
            log.warning("the disk %r cannot be read: %s", disk.name, error)
            found[disk.name] = NamedDisk(
                name=disk.name,
                source=Bytes(b""),
                mtime_ns=mtime_ns,
                problem=str(error),
                again=again,
            )
            return
        found[disk.name] = NamedDisk(
            name=disk.name,
            source=chain,
            mtime_ns=mtime_ns,
            allocated=chain.allocated,
            notes=chain.notes,
        )

    async with open_nursery() as nursery:
        for disk in disks:
            nursery.start_soon(open_one, disk)
    return [found[disk.name] for disk in disks]

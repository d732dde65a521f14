"""One Xen Orchestra repository: unlocked, its backups listed, each opened when somebody looks."""

import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from backgate.fs.backup_disks import NamedDisk
from backgate.fs.disk_tree import open_disks
from backgate.fs.disks.chunks import Chunks
from backgate.fs.disks.keys import BadPath, beside
from backgate.fs.format import Backup, Count, Surroundings
from backgate.fs.formats.indexes import identity
from backgate.fs.formats.xen_orchestra.chains import Chains
from backgate.fs.formats.xen_orchestra.configurations import (
    configuration_backup,
    configuration_tree,
)
from backgate.fs.formats.xen_orchestra.crypto import OVERHEAD
from backgate.fs.formats.xen_orchestra.disks import open_all
from backgate.fs.formats.xen_orchestra.documents import (
    METADATA_MAX,
    Metadata,
    MetadataBackup,
    parse,
)
from backgate.fs.formats.xen_orchestra.examination import Verdict, examined
from backgate.fs.formats.xen_orchestra.facts import Facts
from backgate.fs.formats.xen_orchestra.layout import (
    METADATA,
    MetadataLayout,
    VmLayout,
    stamp_of,
    time_ns_of,
)
from backgate.fs.formats.xen_orchestra.locked import locked
from backgate.fs.formats.xen_orchestra.remote import Remote
from backgate.fs.formats.xen_orchestra.tables import Tables
from backgate.fs.formats.xen_orchestra.vms import (
    DELTA,
    DISKS_MAX,
    FULL,
    Disk,
    VmBackup,
    directories,
    disk_names,
    disks_of,
    judged,
    qcow2_warning,
    shown,
    unfinished,
    vm_name,
)
from backgate.fs.formats.xen_orchestra.xva import Archives, Unpacking
from backgate.fs.nurseries import open_nursery
from backgate.fs.tree import Tree
from backgate.gateway.errors import (
    Damaged,
    NotFound,
    PasswordNeeded,
    Replaced,
    StoreError,
    Unreachable,
)
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data
from backgate.gateway.units import KIB

READERS = 16  # metadata files read at once
SMALL = 64 * KIB  # bytes of metadata that are parsed at once; a thread takes as long

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Memory:
    """What all repositories of a store share."""

    chunks: Chunks
    unpacking: Unpacking
    tables: Tables


class Repository:
    """The repository at the prefix `where`."""

    def __init__(self, where: str, lent: Surroundings, memory: Memory) -> None:
        self.remote = Remote(where, lent)
        self._lent = lent
        self._chunks = memory.chunks
        self._archives = Archives(self.remote, lent, memory.unpacking)
        self._chains = Chains(self.remote, memory.chunks, memory.tables)
        self._documents: dict[str, MetadataBackup] = {}  # by identity of theirs
        self._read: dict[str, VmBackup] = {}  # by identity of the metadata
        self._vms: Sequence[VmLayout] = ()
        self._configurations: Sequence[MetadataLayout] = ()
        self._may_pass = True  # something in the last answer may be otherwise at the next asking

    async def backups(
        self, vms: Sequence[VmLayout], configurations: Sequence[MetadataLayout]
    ) -> list[Backup]:
        """Return all backups, complete or not, of the repository as the layouts describe it.

        Raises `Unreachable`, or `Denied` when everything is: that is not missing.
        """
        self._vms, self._configurations = vms, configurations
        self._may_pass = False
        samples = _samples(vms, configurations)
        try:
            if samples:
                await self.remote.unlock(samples)
        except Unreachable:
            raise
        except (PasswordNeeded, StoreError) as error:
            self._may_pass = True
            if isinstance(error, StoreError) and self.remote.was_unlocked:
                raise  # what was found before is still there
            return [locked(self.remote.where, str(error), samples)]
        read = await self._metadata([info for vm in vms for info in vm.metadata.values()])
        return await self._found(read)

    @property
    def is_settled(self) -> bool:
        """True when the last answer holds as long as the same objects announce backups."""
        return not self._may_pass

    async def _found(self, read: Mapping[str, VmBackup]) -> list[Backup]:
        vms = self._vms
        found: list[Backup] = []
        names = directories({vm.uuid: vm_name(_of(vm, read), vm.uuid) for vm in vms})
        for vm in vms:
            for one in _of(vm, read):
                reason = one.reason or await self._fault(vm, one)
                self._may_pass |= bool(reason and not one.reason)
                found.append(shown(vm, names[vm.uuid], one, reason))
            found += unfinished(vm, names[vm.uuid])
        return found + await self._found_configurations()

    async def _found_configurations(self) -> list[Backup]:
        found: dict[str, Backup] = {}
        files = (one.files.get(METADATA) for one in self._configurations)
        wanted = {identity(info) for info in files if info is not None}
        self._documents = {name: one for name, one in self._documents.items() if name in wanted}
        readers = trio.CapacityLimiter(READERS)

        async def read(layout: MetadataLayout) -> None:
            async with readers:
                backup = await configuration_backup(self.remote, layout, self._documents)
                found[layout.directory] = backup

        async with open_nursery() as nursery:
            for layout in self._configurations:
                nursery.start_soon(read, layout)
        self._may_pass |= not all(backup.is_complete for backup in found.values())
        return [found[layout.directory] for layout in self._configurations]

    async def examined(self, backups: Sequence[Backup], count: Count) -> list[Backup]:
        """Return the same backups; of those whose disks are not whole, with the reason.

        Raises `Unreachable`. `count` is told of disks.
        """
        parsed = {backup.key: self._read.get(backup.version) for backup in backups}
        whole = [one for backup in backups if backup.is_complete and (one := parsed[backup.key])]
        disks = {one.info.key: self._disks(one) for one in whole}
        verdicts: Mapping[str, Verdict] = {}
        if keys := {disk.key for found in disks.values() for disk in found}:
            facts = Facts(self._lent.cache_directory, self.remote.where)
            states = {at: names for vm in self._vms for at, names in vm.states.items()}
            verdicts = await examined(self.remote, self._chunks, facts, keys, states, count)
        vms = {vm.directory: vm for vm in self._vms}
        found: dict[str, list[tuple[str, Verdict]]] = {}
        for one in whole:
            parts = [(f"the disk {disk.name!r}: ", disk.key) for disk in disks[one.info.key]]
            found[one.info.key] = [(name, verdicts[key]) for name, key in parts]
            found[one.info.key].append(("", self._archive_verdict(one, vms.get(_directory(one)))))
        return [judged(backup, found.get(backup.key, ())) for backup in backups]

    def _disks(self, one: VmBackup) -> list[Disk]:
        if one.metadata is None or one.metadata.mode != DELTA:
            return []
        return disks_of(_directory(one), one.metadata)

    def _archive_verdict(self, one: VmBackup, vm: VmLayout | None) -> Verdict:
        """Return what the length of a full backup's archive says."""
        info = vm.archives.get(one.stamp) if vm else None
        if info is None or not one.metadata or one.metadata.mode != FULL:
            return Verdict()
        size = (one.metadata.size or 0) + (OVERHEAD if self.remote.opener else 0)
        if info.size >= size:
            return Verdict()
        return Verdict(f"{info.key} is cut off: {info.size} of {size} bytes")

    @asynccontextmanager
    async def open(self, backup: Backup) -> AsyncIterator[Tree]:
        """Open a complete backup; `Replaced` when its metadata is another by now."""
        for configuration in self._configurations:
            if backup.key.startswith(configuration.directory):
                yield await configuration_tree(self.remote, configuration, backup)
                return
        vm = next((vm for vm in self._vms if backup.key.startswith(vm.directory)), None)
        if vm is None:
            raise NotFound(f"{backup.key}: it is gone", key=backup.key)
        info = await self._lent.objects.info(backup.key)
        if identity(info) != backup.version:
            raise Replaced(f"{info.key}: it is another by now", key=info.key)
        one = await self._one(vm, info)
        if one.metadata is None:
            raise Damaged(info.key, None, one.reason)
        if warning := qcow2_warning(one.metadata):
            log.warning("%s: %s", info.key, warning)
        lent = self._lent
        async with (
            self._opened(vm, one.metadata, info) as disks,
            open_disks(disks, lent, where=info.key, passphrases=lent.passphrases) as tree,
        ):
            yield tree

    @asynccontextmanager
    async def _opened(
        self, vm: VmLayout, metadata: Metadata, announced: ObjectInfo
    ) -> AsyncIterator[Sequence[NamedDisk]]:
        mtime_ns = time_ns_of(stamp_of(announced.key))
        if metadata.mode == DELTA:
            disks = disks_of(vm.directory, metadata)
            with self._chains.tables.share() as share:
                yield await open_all(self._chains, disks, vm, announced, share)
            return
        info = await self.remote.info(beside(announced.key, metadata.xva or "", vm.directory))
        async with self._archives.open(info) as archive:
            names = disk_names((disk.device, disk.label) for disk in archive.disks)
            yield [
                NamedDisk(
                    name=name,
                    source=archive.source(disk, self._chunks),
                    mtime_ns=mtime_ns,
                    notes={"image": "xva"},
                )
                for name, disk in zip(names, archive.disks, strict=True)
            ]

    async def _metadata(self, infos: Iterable[ObjectInfo]) -> dict[str, VmBackup]:
        """Return the metadata of backups by key; each version is read once."""
        wanted = {identity(info): info for info in infos}
        self._read = {name: one for name, one in self._read.items() if name in wanted}
        missing = [info for name, info in wanted.items() if name not in self._read]
        failures: list[Unreachable] = []
        unread: dict[str, VmBackup] = {}  # for a reason that may pass
        readers = trio.CapacityLimiter(READERS)

        async def read(info: ObjectInfo) -> None:
            async with readers:
                if failures:
                    return
                try:
                    self._read[identity(info)] = await self._parsed(info)
                except NotFound:
                    log.debug("%s has been deleted", info.key)  # after the listing
                except Unreachable as error:
                    failures.append(error)
                except StoreError as error:
                    unread[info.key] = VmBackup(info, stamp_of(info.key), None, str(error))

        async with trio.open_nursery() as nursery:
            for info in missing:
                nursery.start_soon(read, info)
        if failures:
            raise failures[0]
        self._may_pass |= bool(unread)
        return {one.info.key: one for one in self._read.values()} | unread

    async def _parsed(self, info: ObjectInfo) -> VmBackup:
        stamp = stamp_of(info.key)
        directory = info.key.rpartition("/")[0] + "/"
        try:
            content = await self.remote.read(info, METADATA_MAX)
            metadata = await self._decoded(info.key, content)
            if metadata.mode not in (DELTA, FULL):
                raise Damaged(info.key, None, f"a backup of an unknown mode: {metadata.mode!a:.40}")
            records = (metadata.vhds, metadata.vdis, metadata.vbds)
            if any(len(one or ()) > DISKS_MAX for one in records):
                raise Damaged(info.key, None, "more disks than a VM can have")
            disks_of(directory, metadata)
            if metadata.mode == FULL:
                beside(info.key, metadata.xva or "", directory)
        except (BadPath, Damaged) as error:
            return VmBackup(info, stamp, None, str(error))
        return VmBackup(info, stamp, metadata)

    async def _decoded(self, key: str, content: Data) -> Metadata:
        if len(content) <= SMALL:
            return parse(key, content, Metadata)
        workers = self._lent.workers
        return await trio.to_thread.run_sync(parse, key, content, Metadata, limiter=workers)

    async def _one(self, vm: VmLayout, info: ObjectInfo) -> VmBackup:
        return self._read.get(identity(info)) or await self._parsed(info)

    async def _fault(self, vm: VmLayout, one: VmBackup) -> str:
        """Return why a backup is not complete, as far as names tell; "" when they are all there."""
        if one.metadata is None:
            return one.reason
        if one.metadata.mode == FULL:
            key = beside(one.info.key, one.metadata.xva or "", vm.directory)
            known = [vm.archives[one.stamp].key] if one.stamp in vm.archives else []
            return "" if key in known or await self._is_there(key) else f"{key} is missing"
        known = [info.key for info in vm.disks.get(one.stamp, ())]
        for disk in disks_of(vm.directory, one.metadata):
            if disk.key in known or vm.states.get(disk.key.rpartition("/")[0]):
                continue  # a merge that was interrupted may have taken the name away
            if not await self._is_there(disk.key) and not await self._is_there(
                f"{disk.key}/header"
            ):
                return f"the disk {disk.name!r} is missing: {disk.key}"
        return ""

    async def _is_there(self, key: str) -> bool:
        try:
            await self.remote.info(key)
        except NotFound:
            return False
        return True


def _directory(one: VmBackup) -> str:
    """Return the directory of the VM of a backup, with the final slash."""
    return one.info.key.rpartition("/")[0] + "/"


def _samples(vms: Sequence[VmLayout], configurations: Sequence[MetadataLayout]) -> list[ObjectInfo]:
    """Return what announces backups, of which all is JSON, encrypted or not; the newest first."""
    infos = [info for vm in vms for info in vm.metadata.values()]
    infos += [one.files[METADATA] for one in configurations if METADATA in one.files]
    return sorted(infos, key=lambda info: info.mtime_ns, reverse=True)


def _of(vm: VmLayout, read: Mapping[str, VmBackup]) -> list[VmBackup]:
    return [read[info.key] for info in vm.metadata.values() if info.key in read]

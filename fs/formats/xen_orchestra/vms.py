"""The backups of VMs: what their metadata says, under which path each is shown, and what is not."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from backgate.fs.disks.keys import beside
from backgate.fs.format import Backup
from backgate.fs.formats.indexes import identity
from backgate.fs.formats.xen_orchestra.documents import Metadata, Vbd, Vdi
from backgate.fs.formats.xen_orchestra.examination import Verdict
from backgate.fs.formats.xen_orchestra.layout import (
    CONFIG_BACKUPS,
    POOL_BACKUPS,
    VmLayout,
    shown_time,
    time_ns_of,
)
from backgate.fs.formats.xen_orchestra.locked import path_of
from backgate.fs.parts import PART_MAX, safe_part
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.units import size_to_text

DELTA, FULL = "delta", "full"
NOTE_MAX = 1000  # characters
DISKS_MAX = 1000  # of one VM; a hypervisor takes 255
UUID = 36  # characters of a VM's UUID
DIGITS_MAX = 4  # of the number of a disk
QCOW2_WARNING = (
    "made by a release that could store disks of qcow2 storage wrongly: blocks may be zeros that "
    "were not"
)
UNFINISHED = "it was never finished, or is being written: {name} is missing"
LEFT_BEHIND = "it was deleted, or never finished; its disks are kept until they are merged"


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk of a delta backup."""

    name: str  # of its directory: "xvda-root"
    key: str  # of the file, alias or directory of its youngest image
    size: int | None  # bytes, as the metadata has it


@dataclass(frozen=True, slots=True)
class VmBackup:
    """One backup's metadata: parsed, or why not."""

    info: ObjectInfo
    stamp: str
    metadata: Metadata | None
    reason: str = ""


def vm_name(backups: Iterable[VmBackup], uuid: str) -> str:
    """Return what a VM was called last; its UUID when no backup can tell."""
    for one in sorted(backups, key=lambda one: one.stamp, reverse=True):
        if one.metadata is not None and one.metadata.vm is not None:
            return safe_part(one.metadata.vm.name_label or uuid)
    return safe_part(uuid)


def directories(names: Mapping[str, str]) -> dict[str, str]:
    """Return the directory of each VM by its UUID, out of its name: with UUID if two share one."""
    counts = Counter(names.values())
    taken = {CONFIG_BACKUPS, POOL_BACKUPS}
    found = {uuid: name for uuid, name in names.items() if counts[name] == 1 and name not in taken}
    taken.update(found.values())
    for uuid, name in sorted(names.items()):
        if uuid not in found:
            found[uuid] = _with_uuid(name, uuid)
            if found[uuid] in taken:  # somebody has called another VM so, or it was too long
                found[uuid] = _with_uuid(
                    name, hashlib.sha256(uuid.encode("utf-8", "replace")).hexdigest()[:UUID]
                )
            taken.add(found[uuid])
    return found


def _with_uuid(name: str, uuid: str) -> str:
    """Return both as one component, of a long name only the beginning."""
    beginning = name.encode()[: PART_MAX - UUID - 1].decode("utf-8", "ignore")
    return safe_part(f"{beginning} {uuid}")


def disks_of(vm_directory: str, metadata: Metadata) -> list[Disk]:
    """Return the disks of a delta backup in the order of their devices.

    Raises `BadPath` for a path that leads out of the repository.
    """
    vdis = metadata.vdis or {}
    devices = {vbd.VDI: vbd for vbd in (metadata.vbds or {}).values() if vbd.VDI}
    refs = sorted(metadata.vhds or {}, key=lambda ref: _order(devices, ref))
    known = [vdis.get(ref, Vdi()) for ref in refs]
    labels = zip((_device(devices.get(ref)) for ref in refs), known, strict=True)
    names = disk_names((device, vdi.name_label or "") for device, vdi in labels)
    paths = [beside(f"{vm_directory}x", (metadata.vhds or {})[ref], vm_directory) for ref in refs]
    return [
        Disk(name, path, vdi.virtual_size)
        for name, path, vdi in zip(names, paths, known, strict=True)
    ]


def disk_names(disks: Iterable[tuple[str, str]]) -> list[str]:
    """Return the names of disks' directories, out of their devices and what they are called."""
    names: list[str] = []
    for device, label in disks:
        name = safe_part("-".join(part for part in (device, label or "disk") if part))
        number = len(names)
        while name in names:  # another disk may be called what we would call this one
            name, number = safe_part(f"{number}-{name}"), number + 1
        names.append(name)
    return names


def shown(layout: VmLayout, directory: str, one: VmBackup, reason: str) -> Backup:
    """Return a backup as it is listed; with a reason, as one that is not shown."""
    metadata = one.metadata
    return Backup(
        path=(*path_of(layout.where), directory, shown_time(one.stamp)),
        key=one.info.key,
        time_ns=time_ns_of(one.stamp),
        size=metadata.size if metadata else None,
        version=identity(one.info),
        is_complete=not reason,
        reason=reason,
        has_latest=True,
        notes=_notes(layout, metadata) if metadata else {},
    )


def judged(backup: Backup, verdicts: Iterable[tuple[str, Verdict]]) -> Backup:
    """Return a backup with what was found of its parts, each with its name."""
    found = list(verdicts)
    problems = [f"{name}{one.problem}" for name, one in found if one.problem]
    warnings = dict.fromkeys(one.warning for _, one in found if one.warning)
    if problems:
        backup = replace(backup, is_complete=False, reason="; ".join(problems)[:NOTE_MAX])
    if warnings:
        texts = [*([backup.notes["warning"]] if "warning" in backup.notes else []), *warnings]
        backup = replace(backup, notes={**backup.notes, "warning": "; ".join(texts)[:NOTE_MAX]})
    return backup


def unfinished(layout: VmLayout, directory: str) -> list[Backup]:
    """Return what lies in a VM's directory without metadata: no backup, or no longer one."""
    newest = max(layout.metadata, default="")
    found = []
    for stamp in sorted((layout.disks.keys() | layout.archives.keys()) - layout.metadata.keys()):
        infos = layout.disks.get(stamp) or [layout.archives[stamp]]
        is_newer = stamp > newest or stamp in layout.archives
        reason = UNFINISHED.format(name=f"{stamp}.json") if is_newer else LEFT_BEHIND
        found.append(
            Backup(
                path=(*path_of(layout.where), directory, shown_time(stamp)),
                key=infos[0].key,
                time_ns=time_ns_of(stamp),
                is_complete=False,
                reason=reason,
                has_latest=True,
            )
        )
    return found


def _notes(layout: VmLayout, metadata: Metadata) -> dict[str, str]:
    notes = {"mode": metadata.mode, "vm": layout.uuid}
    if metadata.vm is not None:
        notes["name"] = metadata.vm.name_label
    for disk in disks_of(layout.directory, metadata):
        size = "size unknown" if disk.size is None else size_to_text(disk.size)
        notes[f"disk {disk.name}"] = size
    if warning := qcow2_warning(metadata):
        notes["warning"] = warning
    return {name: value[:NOTE_MAX] for name, value in notes.items() if value}


def qcow2_warning(metadata: Metadata) -> str:
    """Return a warning when the disks may have been stored wrongly, else nothing."""
    has_qcow2 = any(vdi.is_qcow2 for vdi in (metadata.vdis or {}).values())
    return QCOW2_WARNING if has_qcow2 and metadata.includeNonNbdQcow2Fix is None else ""


def _device(vbd: Vbd | None) -> str:
    if vbd is None:
        return ""
    return vbd.device or ("" if vbd.userdevice is None else str(vbd.userdevice))


def _order(devices: Mapping[str, Vbd], ref: str) -> tuple[int, str, str]:
    vbd = devices.get(ref)
    number = str(vbd.userdevice) if vbd is not None else ""
    is_number = number.isdecimal() and len(number) <= DIGITS_MAX
    return (int(number) if is_number else DISKS_MAX, _device(vbd), ref)

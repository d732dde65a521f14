"""Backups of Xen Orchestra's own configuration, and of a pool's metadata: a file each."""

from collections.abc import MutableMapping
from dataclasses import replace

from backgate.fs.disks.keys import BadPath, beside
from backgate.fs.format import Backup
from backgate.fs.formats.indexes import identity
from backgate.fs.formats.xen_orchestra.documents import METADATA_MAX, MetadataBackup, parse
from backgate.fs.formats.xen_orchestra.files_tree import FilesTree
from backgate.fs.formats.xen_orchestra.layout import (
    CONFIG_BACKUPS,
    METADATA,
    POOL_BACKUPS,
    MetadataLayout,
    shown_time,
    time_ns_of,
)
from backgate.fs.formats.xen_orchestra.locked import path_of
from backgate.fs.formats.xen_orchestra.remote import Remote
from backgate.fs.parts import safe_part
from backgate.gateway.errors import Damaged, Replaced, StoreError, Unreachable
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Bytes, Source

OLD_DATA = "data.json"  # the name where metadata do not say any, as in old backups
POOL_DATA = "data"


async def configuration_backup(
    remote: Remote, layout: MetadataLayout, read: MutableMapping[str, MetadataBackup]
) -> Backup:
    """Return the backup that a directory of `xo-config-backups` or the like holds.

    `read` are documents that were read, by their identity. Raises `Unreachable`.
    """
    info = layout.files.get(METADATA)
    if info is None:
        first = next(iter(layout.files.values()))
        reason = f"it was never finished, or is being written: {METADATA} is missing"
        return _backup(layout, first.key, _fallback(layout), reason)
    try:
        metadata = read.get(name := identity(info))
        if metadata is None:
            content = await remote.read(info, METADATA_MAX)
            metadata = read[name] = parse(info.key, content, MetadataBackup)
        data = await remote.info(_data_key(layout, metadata))
    except Unreachable:
        raise
    except (Damaged, StoreError) as error:
        return _backup(layout, info.key, _fallback(layout), str(error))
    backup = _backup(layout, info.key, _name(layout, metadata), "")
    return replace(backup, size=data.size, version=_version(info, data))


async def configuration_tree(remote: Remote, layout: MetadataLayout, backup: Backup) -> FilesTree:
    """Open such a backup: the document that describes it, and the data.

    Raises `Damaged`, `StoreError`; `Replaced` when it is another than `backup` by now.
    """
    info = await remote.info(layout.directory + METADATA)
    described = await remote.read(info, METADATA_MAX)
    key = _data_key(layout, parse(info.key, described, MetadataBackup))
    data = await remote.info(key)
    if _version(info, data) != backup.version:
        raise Replaced(f"{info.key}: it is another by now", key=info.key)
    files: dict[tuple[bytes, ...], Source] = {
        (METADATA.encode(),): Bytes(described),
        (key.rpartition("/")[2].encode(),): remote.plain_source(data),
    }
    return FilesTree(files, backup.time_ns)


def _version(described: ObjectInfo, data: ObjectInfo) -> str:
    return f"{described.etag}-{data.etag}"


def _data_key(layout: MetadataLayout, metadata: MetadataBackup) -> str:
    name = metadata.data or (POOL_DATA if layout.is_pool else OLD_DATA)
    try:
        return beside(layout.directory + METADATA, name, layout.directory)
    except BadPath as error:
        raise Damaged(layout.directory + METADATA, None, str(error)) from None


def _name(layout: MetadataLayout, metadata: MetadataBackup) -> str:
    if layout.is_pool:
        return (metadata.pool and metadata.pool.name_label) or _fallback(layout)
    return metadata.jobName or metadata.scheduleName or _fallback(layout)


def _fallback(layout: MetadataLayout) -> str:
    """The directory that tells backups apart: a schedule's, or a pool's."""
    return layout.directory.split("/")[-3]


def _backup(layout: MetadataLayout, key: str, name: str, reason: str) -> Backup:
    folder = POOL_BACKUPS if layout.is_pool else CONFIG_BACKUPS
    return Backup(
        path=(*path_of(layout.where), folder, safe_part(name), shown_time(layout.time)),
        key=key,
        time_ns=time_ns_of(layout.time),
        is_complete=not reason,
        reason=reason,
        has_latest=True,
    )

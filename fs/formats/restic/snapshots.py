"""The snapshots of a repository as backups: their paths, their times, and what is said of them."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from backgate.fs.format import Backup
from backgate.fs.formats.restic.crypto import Unsound
from backgate.fs.formats.restic.documents import Snapshot, id_from_hex, parse
from backgate.fs.formats.restic.layout import Layout
from backgate.fs.formats.restic.values import time_ns_from_go
from backgate.fs.parts import safe_part
from backgate.gateway.errors import Damaged
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.units import SECOND_NS

SHORT_ID = 8  # characters
NOTE_MAX = 1000  # characters
EPOCH = datetime.datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Announced:
    """A snapshot: how it is listed, and the tree blob at its root (None: not complete)."""

    backup: Backup
    root: bytes | None


def announced(layout: Layout, info: ObjectInfo, data: bytes) -> Announced:
    """Return what the snapshot file `info` says; `Damaged` when it makes no sense."""
    try:
        snapshot = parse(data, Snapshot)
        time_ns = time_ns_from_go(snapshot.time)
        root = id_from_hex(snapshot.tree)
    except Unsound as error:
        raise Damaged(info.key, None, str(error)) from None
    summary = snapshot.summary
    id_ = info.key.rpartition("/")[2]
    backup = Backup(
        path=(*layout.path, safe_part(snapshot.hostname), f"{_stamp(time_ns)}-{id_[:SHORT_ID]}"),
        key=info.key,
        time_ns=time_ns,
        size=summary.total_bytes_processed if summary else None,
        has_latest=True,
        notes=_notes(id_, snapshot),
    )
    return Announced(backup, root)


def incomplete(layout: Layout, info: ObjectInfo, reason: str) -> Announced:
    """Return a snapshot that cannot be shown, and why."""
    id_ = info.key.rpartition("/")[2]
    path = (*layout.path, "unreadable", id_[:SHORT_ID])
    backup = Backup(
        path=path, key=info.key, time_ns=info.mtime_ns, is_complete=False, reason=reason
    )
    return Announced(backup, None)


def _stamp(time_ns: int) -> str:
    try:
        time = EPOCH + datetime.timedelta(seconds=time_ns // SECOND_NS)
    except OverflowError:
        return "undated"
    return time.strftime("%Y-%m-%dT%H-%M-%SZ")


def _notes(id_: str, snapshot: Snapshot) -> dict[str, str]:
    notes = {
        "id": id_,
        "host": snapshot.hostname,
        "user": snapshot.username,
        "paths": _joined(snapshot.paths),
        "tags": _joined(snapshot.tags),
        "original": snapshot.original or "",
        "program": snapshot.program_version,
    }
    return {name: value[:NOTE_MAX] for name, value in notes.items() if value}


def _joined(texts: Iterable[str] | None) -> str:
    return ", ".join(texts or ())

"""What `backgate backups --disks` tells: the disks of a backup, and what lies on them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from backgate.cli.output import print_table, printable
from backgate.fs.disk_tree import DiskTree
from backgate.fs.visit import CONFINED
from backgate.gateway.units import size_to_text

if TYPE_CHECKING:
    from backgate.fs.catalogue import Found
    from backgate.fs.disk_layout import Report
    from backgate.fs.format import Count

LEFT_TO_PROGRAMS = ("number", "start", "uuid")  # notes that only --json tells


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look at the disks of a backup told; None: it has none, or cannot be opened."""

    found: "Found"
    report: "Report | None"
    problem: str = ""


async def look_at_all(found: Sequence["Found"], count: "Count") -> list[Looked]:
    """Open each backup and everything on its disks, one after another.

    `count` is told of backups. Raises `StoreError` when nobody can be asked.
    """
    count(0, len(found))
    looked = []
    for one in found:
        looked.append(await _look(one))
        count(1, 0)
    return looked


async def _look(found: "Found") -> Looked:
    if not found.backup.is_complete:
        return Looked(found, None)
    try:
        async with found.format.open(found.backup) as tree:
            return Looked(found, await tree.report() if isinstance(tree, DiskTree) else None)
    except CONFINED as error:
        return Looked(found, None, str(error))


def record_of_disks(looked: Looked) -> dict[str, Any]:
    """Return it for programs."""
    if looked.report is None:
        return {"problem": looked.problem} if looked.problem else {}
    return asdict(looked.report)


def print_disks(path: str, looked: Looked) -> None:
    """Print it for people."""
    if looked.problem:
        click.echo(f"backgate: {printable(f'{path}: {looked.problem}'.encode())}", err=True)
    report = looked.report
    if report is None:
        return
    rows = [(f"disk {one.name}", one.size, _said(one.problem, one.notes)) for one in report.disks]
    for volume in report.volumes:
        notes = {"": volume.file_system} | dict(volume.notes)
        rows.append((volume.path, volume.size, _said(volume.problem, notes)))
    click.echo(f"\n{printable(path.encode())}")
    print_table(
        ["WHERE", "SIZE", "WHAT"],
        [[printable(where.encode()), size_to_text(size), said] for where, size, said in rows],
        "SIZE",
    )


def _said(problem: str, notes: dict[str, str] | Any) -> str:
    facts = [
        f"{name} {text}" if name else text
        for name, text in notes.items()
        if text and name not in LEFT_TO_PROGRAMS
    ]
    return printable("; ".join([*facts, *([problem] if problem else [])]).encode())

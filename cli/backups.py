"""`backgate backups`: what can be restored from a repository, whichever tool wrote it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from backgate.cli.options import chosen, repository_options, target_argument
from backgate.cli.output import (
    Progress,
    json_option,
    print_json,
    print_table,
    printable,
    progress_bar,
    time_text,
)

if TYPE_CHECKING:
    from backgate.cli.session import Session
    from backgate.fs.catalogue import Found
    from backgate.fs.format import Backup


@click.command()
@target_argument
@click.option("--all", "with_unfinished", is_flag=True, help="Unfinished ones too, and why.")
@click.option("--disks", "with_disks", is_flag=True, help="Look at the disks in each of them.")
@repository_options
@json_option
@click.pass_context
def command(
    context: click.Context, target: str, with_unfinished: bool, with_disks: bool, as_json: bool
) -> None:
    """List the completed backups in a repository.

    PATH is where a backup is found below a mount and in other commands' TARGET:PATH. With --all
    backups that are unfinished or cannot be opened are listed too, with the reason. With --disks
    each backup that consists of disks is opened, and what lies on them is listed: partitions,
    volumes, file systems, and what replaying their journals did.

    \b
    Examples:
      backgate backups offsite
      backgate backups offsite --all
      backgate backups offsite:backups/restic/web01 --json
      backgate backups offsite:backups/xen-orchestra/web01 --disks
    """
    from backgate.cli.disks import Looked, look_at_all, print_disks, record_of_disks
    from backgate.cli.session import in_session

    choice = chosen(context, target)
    below = choice.target.path.removeprefix("backups").strip("/")

    looks_closer = with_unfinished or with_disks
    with progress_bar("looking at disks", is_bytes=False, show=looks_closer) as progress:
        count = _Counted(progress)

        async def act(session: "Session") -> tuple[Sequence["Found"], Sequence[Looked]]:
            catalogue = session.shown.catalogue
            examines = with_unfinished and not with_disks
            everything = await (catalogue.examined(count) if examines else catalogue.found())
            found = [one for one in everything if _is_below(one, below)]
            found.sort(key=lambda one: (_subject(one), one.backup.time_ns))
            return found, await look_at_all(found, count) if with_disks else []

        found, looked = in_session(choice, act)
    shown = [one for one in found if one.backup.is_complete or with_unfinished]
    if as_json:
        disks = {id(one.found): record_of_disks(one) for one in looked}
        print_json([_record(one) | disks.get(id(one), {}) for one in shown])
        return
    _print(shown, with_reasons=with_unfinished)
    for one in looked:
        print_disks(_path(one.found), one)
    if not with_unfinished:
        _explain_closed(found)


class _Counted:
    """Moves a bar by what more is done, and what more is due."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done = self._due = 0

    def __call__(self, done: int, due: int) -> None:
        self._done, self._due = self._done + done, self._due + due
        self._progress(self._done, self._due)


def _print(shown: Sequence["Found"], *, with_reasons: bool) -> None:
    from backgate.gateway.units import size_to_text

    head = ["PATH", "TIME", "SIZE"] + (["STATE"] if with_reasons else [])
    rows = []
    for one in shown:
        size = "-" if one.backup.size is None else size_to_text(one.backup.size)
        row = [_path(one), time_text(one.backup.time_ns), size]
        state = _state(one.backup)
        rows.append([*row, state] if with_reasons else row)
    if rows:
        print_table(head, [[printable(cell.encode()) for cell in row] for row in rows], "SIZE")


def _state(backup: "Backup") -> str:
    if not backup.is_complete:
        return f"{backup.key}: {backup.reason}"
    warning = backup.notes.get("warning")
    return f"complete; {warning}" if warning else "complete"


def _explain_closed(found: Sequence["Found"]) -> None:
    """Say which backups are there but cannot be opened, such as those that want a password."""
    for one in found:
        if not one.backup.is_complete and one.backup.files:
            text = f"{_path(one)}: {one.backup.reason}"
            click.echo(f"backgate: {printable(text.encode())}", err=True)


def _record(one: "Found") -> dict[str, Any]:
    backup = one.backup
    return {
        "path": _path(one),
        "format": one.format.name,
        "subject": "/".join(backup.path[:-1]) if backup.has_latest else "/".join(backup.path),
        "object": backup.key,
        "time": time_text(backup.time_ns),
        "time_ns": backup.time_ns,
        "size": backup.size,
        "complete": backup.is_complete,
        "reason": backup.reason,
        "notes": dict(backup.notes),
    }


def _path(one: "Found") -> str:
    return "/".join(("backups", one.format.name, *one.backup.path))


def _subject(one: "Found") -> tuple[str, tuple[str, ...]]:
    path = one.backup.path
    return one.format.name, path[:-1] if one.backup.has_latest else path


def _is_below(one: "Found", path: str) -> bool:
    return f"{one.format.name}/{'/'.join(one.backup.path)}/".startswith(f"{path}/" if path else "")

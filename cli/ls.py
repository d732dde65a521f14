"""`backgate ls`: one directory of the tree, as a mount would show it."""

from typing import TYPE_CHECKING

import click

from backgate.cli.options import chosen, repository_options, target_argument
from backgate.cli.output import JsonArray, json_option, print_name

if TYPE_CHECKING:
    from backgate.cli.session import Session
    from backgate.fs.tree import Entry


@click.command()
@target_argument
@click.option("-l", "--long", "is_long", is_flag=True, help="With mode, owner, size and time.")
@repository_options
@json_option
@click.pass_context
def command(context: click.Context, target: str, is_long: bool, as_json: bool) -> None:
    """List a directory of the tree, without a mount.

    TARGET without a path shows the top of the tree: repository and backups.

    \b
    Examples:
      backgate ls offsite:backups
      backgate ls -l offsite:backups/restic/web01/latest/etc
      backgate ls ./store:repository --json
    """
    from backgate.cli.session import in_session

    async def act(session: "Session") -> None:
        await _list(session, is_long=is_long, as_json=as_json)

    in_session(chosen(context, target), act)


async def _list(session: "Session", *, is_long: bool, as_json: bool) -> None:
    import os

    from backgate.cli.entries import entry_record, long_line
    from backgate.fs.visit import settled

    path = os.fsencode(session.choice.target.path)
    tree, here = await session.place(session.choice.target.path)
    array = JsonArray() if as_json else None

    def show(entry: "Entry", where: bytes) -> None:
        if array is not None:
            array.add(entry_record(where, entry))
        elif is_long:
            click.echo(long_line(entry))
        else:
            print_name(entry.name)

    if not here.is_directory:
        show(here, path)
    cursor: bytes | None = None
    while here.is_directory:
        page = await tree.children(here, cursor)
        for entry in page.entries:
            if is_long or as_json:
                entry = await settled(tree, here, entry)
            show(entry, b"/".join(part for part in (path, entry.name) if part))
        cursor = page.cursor
        if cursor is None:
            break
    if array is not None:
        array.close()

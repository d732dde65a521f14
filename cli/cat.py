"""`backgate cat`: the contents of files in the tree, to standard output."""

import sys
from typing import TYPE_CHECKING

import click

from backgate.cli.options import chosen, complete_target, repository_options

if TYPE_CHECKING:
    from backgate.cli.session import Session

PIECE = 4 * 1024 * 1024  # bytes read and written at a time


@click.command()
@click.argument(
    "targets", metavar="TARGET:PATH...", nargs=-1, required=True, shell_complete=complete_target
)
@repository_options
@click.pass_context
def command(context: click.Context, targets: tuple[str, ...]) -> None:
    """Write files of the tree to standard output, one after another.

    Only what is needed is fetched: one file out of a large archive costs a few requests.

    \b
    Examples:
      backgate cat offsite:backups/restic/web01/latest/etc/fstab
      backgate cat offsite:backups/tar/monday/db.dump | psql
    """
    from backgate.cli.session import in_session

    for target in targets:
        in_session(chosen(context, target), _write)


async def _write(session: "Session") -> None:
    import errno

    import trio

    from backgate.gateway.errors import Damaged, FileError
    from backgate.gateway.readahead import Budget, ReadAhead

    path = session.choice.target.path
    tree, entry = await session.place(path)
    if not entry.is_file:
        raise FileError(errno.EISDIR if entry.is_directory else errno.EINVAL, path)
    sys.stdout.flush()
    async with tree.open(entry) as source, trio.open_nursery() as nursery:
        ahead = ReadAhead(source, nursery, Budget())
        offset = 0
        while offset < source.size:
            data = await ahead.read_at(offset, PIECE)
            if not data:
                raise Damaged(path, offset, "ends early")
            await trio.to_thread.run_sync(_write_all, data)
            offset += len(data)
        ahead.close()


def _write_all(data: bytes | memoryview) -> None:
    """In a thread: who reads the pipe may be slow, and what is ahead is to go on meanwhile."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()

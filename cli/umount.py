"""`backgate umount`: end a mount, once everything written through it is stored."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from backgate.cli.options import directory_argument
from backgate.cli.output import json_option, print_json
from backgate.cli.waiting import told
from backgate.gateway.errors import BackgateError

if TYPE_CHECKING:
    from backgate.fs.running import RunningMount

GONE_WITHIN = 30.0  # seconds for a process that has stored everything to end


@click.command()
@directory_argument
@click.option(
    "--abort",
    is_flag=True,
    help="Do not wait: free who waits for the store; what is not stored stays in the spool.",
)
@json_option
def command(directory: str, abort: bool, as_json: bool) -> None:
    """Wait until everything written is in the store, then unmount DIR.

    What it waits for is shown: by a bar on a terminal, else by a line now and then.

    With --abort it does not wait. Nothing is lost then either: what was not stored stays in the
    spool and is listed by `backgate spool list`. The next mount stores what was closed; what was
    still open waits for `backgate spool retry`.

    \b
    Examples:
      backgate umount /mnt/offsite
      backgate umount --abort /mnt/offsite
    """
    from backgate.cli.mounts import mount_at

    mount = mount_at(directory)
    left: Mapping[str, Any] = {"pending_files": 0, "pending_bytes": 0}
    if mount is not None:
        left = mount.ask("abort") if abort else _flush_and_stop(mount, show=not as_json)
        if not mount.wait_until_gone(GONE_WITHIN):
            raise BackgateError(f"{directory}: unmounted, but process {mount.pid} has not ended")
    if as_json:
        print_json(dict(left))
    elif left["pending_files"]:
        count = left["pending_files"]
        files = f"{count} file{' is' if count == 1 else 's are'}"
        click.echo(
            f"backgate: {directory}: {files} not stored yet: `backgate spool list` shows which; "
            "the next mount stores what was closed, `backgate spool retry` the others too",
            err=True,
        )


def _flush_and_stop(mount: "RunningMount", *, show: bool) -> Mapping[str, Any]:
    with told(mount.mountpoint, show=show) as advance:
        return mount.ask("stop", progress=advance)

"""`backgate mount`: show a repository, or one place in it, as a directory."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from backgate.cli.logs import log_to_stderr
from backgate.cli.options import (
    Choice,
    chosen,
    directory_argument,
    repository_options,
    target_argument,
)
from backgate.gateway.errors import UsageError

if TYPE_CHECKING:
    from backgate.fs.gateway_tree import View
    from backgate.gateway.config import Kind

VIEWS = ("all", "repository", "backups")
KINDS = ("repository", "mirror")
LOG = "mount.log"  # below the state folder; what a mount in the background has to say

# What fstab lines carry for mount(8) and systemd; the kernel's own flags that we always set.
_FOR_OTHERS = {"defaults", "rw", "auto", "noauto", "nofail", "_netdev", "user", "users", "nouser"}
_FOR_OTHERS |= {"group", "owner", "nosuid", "nodev", "exec", "relatime", "noatime", "async"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """How to mount, from options and from `-o`."""

    view: "View"
    is_read_only: bool
    allow_other: bool


@click.command()
@target_argument
@directory_argument
@click.option(
    "-f", "--foreground", is_flag=True, help="Stay, and log to standard error (for systemd)."
)
@click.option(
    "--view",
    type=click.Choice(VIEWS),
    default="all",
    show_default=True,
    help="Show both directories, or one of them as the mount itself.",
)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    help="Keep what backup tools need, or all that a file system keeps (default: as configured).",
)
@click.option("--read-only", is_flag=True, help="Let the kernel refuse every change.")
@click.option(
    "--allow-other", is_flag=True, help="Let other users in, as far as file modes let them."
)
@click.option(
    "-o", "fstab_options", metavar="OPTIONS", multiple=True, help="Options as fstab gives them."
)
@repository_options
@click.pass_context
def command(
    context: click.Context,
    target: str,
    directory: str,
    foreground: bool,
    view: "View",
    kind: "Kind | None",
    read_only: bool,
    allow_other: bool,
    fstab_options: tuple[str, ...],
) -> None:
    """Mount a repository at DIR.

    DIR/repository holds the objects, to write to; DIR/backups every completed backup, read-only.
    With TARGET:PATH one directory of that tree is mounted. The command returns once the mount
    answers; `backgate umount` ends it when everything is stored.

    After -o: ro, allow_other, view=backups, config=PATH, and what is for mount(8) alone.

    \b
    Examples:
      backgate mount offsite /mnt/offsite
      backgate mount ./store /mnt/store --view repository
      backgate mount offsite:backups/restic/web01/latest /mnt/restore
      offsite /mnt/offsite backgate noauto,x-systemd.automount,_netdev 0 0     (in /etc/fstab)
    """
    wanted = _with_fstab_options(Wanted(view, read_only, allow_other), fstab_options)
    choice = chosen(context, target, {"kind": kind} if kind else {})
    path = choice.target.path
    if path and wanted.view != "all":
        raise UsageError(
            f"mount: {choice.target}: names a directory already, so --view is too much"
        )
    if "backups" in (wanted.view, path.partition("/")[0]):
        wanted = Wanted(wanted.view, is_read_only=True, allow_other=wanted.allow_other)
    _mount(choice, directory, wanted, foreground=foreground)


def _mount(choice: Choice, directory: str, wanted: Wanted, *, foreground: bool) -> None:
    import trio

    from backgate.cli.serving import serve_target
    from backgate.fs.background import into_background
    from backgate.fs.mountpoint import absolute, check_mountpoint, check_system
    from backgate.gateway.places import places_of

    mountpoint = absolute(directory)
    check_system()
    check_mountpoint(mountpoint)
    places = places_of(choice.config)
    ready: Callable[[], None] | None = _log_more
    if foreground:
        _log_more()
    else:
        ready = _then_log_more(into_background(places.state / LOG), places.state / LOG)
    if ready is not None:
        trio.run(serve_target, choice, places, mountpoint, wanted, ready)


def _log_more() -> None:
    log_to_stderr(1)


def _then_log_more(ready: Callable[[], None] | None, log: Path) -> Callable[[], None] | None:
    """Until the mount answers, only warnings are for the terminal; then all is for the log."""
    if ready is None:
        return None

    from backgate.fs.background import keep_short

    def both() -> None:
        ready()
        log_to_stderr(1, partial(keep_short, log))

    return both


def _with_fstab_options(wanted: Wanted, groups: tuple[str, ...]) -> Wanted:
    view, is_read_only, allow_other = wanted.view, wanted.is_read_only, wanted.allow_other
    for option in (one for group in groups for one in group.split(",") if one):
        name, _, value = option.partition("=")
        if name == "ro":
            is_read_only = True
        elif name == "allow_other":
            allow_other = True
        elif name == "view" and value in VIEWS:
            view = cast("View", value)
        elif name == "config" and value:
            os.environ["BACKGATE_CONFIG"] = str(Path(value).absolute())
        elif name not in _FOR_OTHERS and not name.startswith(("x-", "comment")):
            known = "ro, allow_other, view=VIEW, config=PATH"
            raise UsageError(f"mount: -o {option}: not understood; known are {known}")
    return Wanted(view, is_read_only, allow_other)

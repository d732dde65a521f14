"""`backgate status`: the running mounts, and how each is doing."""

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from backgate.cli.options import chosen, optional_target_argument, repository_options
from backgate.cli.output import json_option, print_json, print_table, printable
from backgate.gateway.errors import BackgateError

if TYPE_CHECKING:
    from backgate.fs.running import RunningMount


@click.command()
@optional_target_argument
@repository_options
@json_option
@click.pass_context
def command(context: click.Context, target: str | None, as_json: bool) -> None:
    """Show the running mounts: what they store, fetch and wait for.

    The exit code is 1 when a mount does not answer.

    \b
    Examples:
      backgate status
      backgate status offsite --json
    """
    from backgate.cli.mounts import all_mounts, mounts_of

    mounts = all_mounts() if target is None else mounts_of(chosen(context, target).config)
    found = [_status(mount) for mount in mounts]
    if as_json:
        print_json(found)
    else:
        _print(found)
    context.exit(1 if any("error" in one for one in found) else 0)


def _status(mount: "RunningMount") -> dict[str, Any]:
    known = {
        "mountpoint": mount.mountpoint,
        "target": mount.target,
        "pid": mount.pid,
        "since": mount.since,
    }
    try:
        return {**known, **mount.ask("status")}
    except BackgateError as error:
        return {**known, "error": str(error)}


def _print(found: list[dict[str, Any]]) -> None:
    if not found:
        click.echo("nothing is mounted")
        return
    head = ("MOUNTPOINT", "TARGET", "UP", "PENDING", "FETCHED", "STORED", "LISTED", "STATE")
    rows = [[printable(cell.encode()) for cell in _row(one)] for one in found]
    print_table(head, rows, "UP PENDING FETCHED STORED")
    for one in found:
        if one.get("last_fault"):
            over = "" if one["waiting_for_store"] else ", for which nobody waits now"
            click.echo(f"{one['target']}: last fault of the store{over}: {one['last_fault']}")
        for what, reason in _troubles(one):
            click.echo(f"{one['target']}: {what}: {reason}")


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    from backgate.cli.cache import coverage_text
    from backgate.gateway.units import size_to_text

    hours, minutes = divmod(int(time.time() - one["since"]) // 60, 60)
    up = f"{hours}:{minutes:02}"
    if "error" in one:
        return one["mountpoint"], one["target"], up, "-", "-", "-", "-", "does not answer"
    count = one["pending_files"]
    pending = f"{count} file{'' if count == 1 else 's'}, {size_to_text(one['pending_bytes'])}"
    fetched, stored = size_to_text(one["bytes_in"]), size_to_text(one["bytes_out"])
    known = coverage_text(one["metadata"])
    return one["mountpoint"], one["target"], up, pending, fetched, stored, known, _state(one)


def _state(one: Mapping[str, Any]) -> str:
    if one["is_stopping"]:
        return "stopping"
    if source := one.get("waiting_for_credentials"):  # a mount of an older version says nothing
        return f"credentials expired, waiting for new ones in {source}"
    if count := one["waiting_for_store"]:
        return f"waiting for the store ({count} call{'' if count == 1 else 's'})"
    troubles = [what for what, _ in _troubles(one)]
    return ", ".join(troubles) or "ok"


def _troubles(one: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong that the mount goes on in spite of."""
    metadata = one.get("metadata", {})
    if count := one.get("failed_files"):
        reason = f"{one['failed_reason']}; `backgate spool list` shows what is not in the store"
        yield f"{count} file{'' if count == 1 else 's'} cannot be stored", reason
    if metadata.get("last_error"):
        yield "listing fails", metadata["last_error"]
    if metadata.get("index_trouble"):
        is_file = metadata["index_size"] is not None
        what = "no room for the index" if is_file else "the index does not answer"
        yield what, metadata["index_trouble"]

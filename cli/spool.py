"""`backgate spool`: files written and not yet in the store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from backgate.cli.options import Choice, chosen, repository_options, target_argument
from backgate.cli.output import (
    json_option,
    print_json,
    print_table,
    printable,
    time_text,
)
from backgate.cli.waiting import told
from backgate.gateway.errors import BackgateError, UsageError

if TYPE_CHECKING:
    from backgate.fs.running import RunningMount
    from backgate.gateway.spool import Spool

REPORT_EVERY = 0.5  # seconds between two looks at what is left

Record = Mapping[str, Any]


@click.group()
def command() -> None:
    """Show and mend what is written and not yet in the store.

    A file whose close has returned is in the store. Here are the others: open ones, temporary
    names that wait for their rename, ones that could not be stored and are tried again, and ones
    that a crash left over and that no tool was told are safe.
    """


@command.command("list")
@target_argument
@repository_options
@json_option
@click.pass_context
def list_command(context: click.Context, target: str, as_json: bool) -> None:
    """List the files that are not in the store, with the reason.

    \b
    Example:
      backgate spool list offsite
    """
    from backgate.gateway.units import size_to_text

    pending = _pending(chosen(context, target))
    if as_json:
        print_json(pending)
    elif pending:
        rows = [
            (
                str(one["number"]),
                one["state"],
                size_to_text(one["size"]),
                time_text(one["since_ns"]),
                printable(f"repository/{one['key']}".encode("utf-8", "surrogateescape")),
                printable(one["reason"].encode("utf-8", "surrogateescape")),
            )
            for one in pending
        ]
        print_table(("NUMBER", "STATE", "SIZE", "SINCE", "FILE", "REASON"), rows, "NUMBER SIZE")


@command.command()
@target_argument
@click.argument("keys", metavar="[FILE]...", nargs=-1)
@repository_options
@json_option
@click.pass_context
def retry(context: click.Context, target: str, keys: tuple[str, ...], as_json: bool) -> None:
    """Store now what waits, or only the named files.

    Left-over ones are stored as far as they were written.

    \b
    Examples:
      backgate spool retry offsite
      backgate spool retry offsite repository/db/monday.dump
    """
    choice = chosen(context, target)
    names: list[str | None] = [_key(key) for key in keys] or [None]
    mount = _mount(choice)
    if mount is not None:
        for name in names:
            mount.ask("spool retry", {"key": name})
    else:

        async def act(spool: "Spool") -> None:
            for name in names:
                await spool.retry(name)

        with_spool(choice, act)
    _print_left(choice, as_json)


@command.command()
@target_argument
@click.argument("keys", metavar="FILE...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@repository_options
@json_option
@click.pass_context
def discard(
    context: click.Context, target: str, keys: tuple[str, ...], yes: bool, as_json: bool
) -> None:
    """Drop files of the spool: what was not stored of them is lost.

    \b
    Example:
      backgate spool discard offsite repository/db/half-a.dump
    """
    choice = chosen(context, target)
    names = [_key(key) for key in keys]
    if not yes:
        click.confirm(f"Lose what is written and not stored of {', '.join(keys)}?", abort=True)
    mount = _mount(choice)
    if mount is not None:
        for name in names:
            mount.ask("spool discard", {"key": name})
    else:

        async def act(spool: "Spool") -> None:
            for name in names:
                await spool.discard(name)

        with_spool(choice, act)
    _print_left(choice, as_json)


@command.command()
@target_argument
@repository_options
@json_option
@click.pass_context
def wait(context: click.Context, target: str, as_json: bool) -> None:
    """Return once everything whose close has returned is in the store.

    With durability = "journal" that is later than close; a crash can make it so, too. Temporary
    names that a crash left over are not waited for: see `backgate spool list`.

    \b
    Example:
      backgate spool wait offsite && echo safe
    """
    choice = chosen(context, target)
    mount = _mount(choice)
    with told(target, show=not as_json) as advance:
        if mount is not None:
            mount.ask("flush", progress=advance)
        else:
            from backgate.fs.nurseries import open_nursery

            async def act(spool: "Spool") -> None:
                async with open_nursery() as nursery:
                    nursery.start_soon(_report, spool, advance)
                    await spool.drained()
                    nursery.cancel_scope.cancel()

            with_spool(choice, act)
    _print_left(choice, as_json)


async def _report(spool: "Spool", advance: Callable[[Record], None]) -> None:
    import trio

    while True:
        advance(asdict(spool.waited_for()))
        await trio.sleep(REPORT_EVERY)


def _print_left(choice: Choice, as_json: bool) -> None:
    if as_json:
        print_json(_pending(choice))


def _mount(choice: Choice) -> "RunningMount | None":
    """Return the mount that has the spool of `choice` in use."""
    from backgate.cli.mounts import mounts_of

    writers = [mount for mount in mounts_of(choice.config) if mount.ask("status")["writes"]]
    return writers[-1] if writers else None


def _pending(choice: Choice) -> Sequence[Record]:
    mount = _mount(choice)
    if mount is not None:
        found: list[Record] = []
        mount.ask("spool list", progress=lambda answer: found.extend(answer["pending"]))
        return found
    from backgate.gateway.pending import read_pending
    from backgate.gateway.places import places_of

    spool = places_of(choice.config).spool
    return [asdict(one) for one in read_pending(spool, choice.config.staged)]


def with_spool(choice: Choice, act: "Callable[[Spool], Any]") -> None:
    import trio

    from backgate.gateway.credentials import credentials_of
    from backgate.gateway.places import places_of
    from backgate.gateway.repository import open_repository

    async def run() -> None:
        config = choice.config
        places, credentials = places_of(config), credentials_of(config)
        async with open_repository(
            config, places, credentials, writable=True, crawls=False
        ) as repository:
            if repository.spool is None:
                raise BackgateError(f"{config.name}: cannot be written to")
            await act(repository.spool)

    trio.run(run)


def _key(path: str) -> str:
    """Return the key that a FILE of the list names: its path below `repository/`."""
    if not path.startswith("repository/"):
        raise UsageError(f"spool: {path}: write it as it is listed: repository/{path}")
    return path.removeprefix("repository/")

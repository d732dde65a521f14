"""`backgate turns`: who of several gateways is making a directory, and how to end what one left."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import click

from backgate.cli.options import Choice, chosen, repository_options, target_argument
from backgate.cli.output import json_option, print_json, print_table, printable, time_text
from backgate.gateway.errors import BackgateError, UsageError

if TYPE_CHECKING:
    from backgate.gateway.spool import Spool
    from backgate.gateway.store import ObjectStore
    from backgate.gateway.turns import Turn

SHOWN = 8  # digits of a gateway's name

T = TypeVar("T")


@click.group()
def command() -> None:
    """Show and mend who is making a directory, where several gateways write to one store.

    On stores that keep objects in directories (SeaweedFS, MinIO) gateways with shared writers make
    a directory one after the other. One that dies meanwhile leaves its turn behind, and ends it
    when it starts again. If it never will, nobody else can make that directory before its turn is
    ended here.
    """


@command.command("list")
@target_argument
@repository_options
@json_option
@click.pass_context
def list_command(context: click.Context, target: str, as_json: bool) -> None:
    """List the turns that gateways have now, or have left.

    \b
    Example:
      backgate turns list offsite
    """
    choice = chosen(context, target)
    _print(choice, _turns(choice), as_json)


@command.command("end")
@target_argument
@click.argument("directory", metavar="DIRECTORY")
@click.option("--yes", is_flag=True, help="Do not ask.")
@repository_options
@json_option
@click.pass_context
def end_command(
    context: click.Context, target: str, directory: str, yes: bool, as_json: bool
) -> None:
    """End the turn that a gateway left which will never run again.

    If that gateway does run, two tools may both be told that they have made the directory. So it
    asks, unless the turn is this machine's own, and its gateway is not running: then that is sure.

    \b
    Example:
      backgate turns end offsite repository/lock.exclusive
    """
    from backgate.gateway.turns import end, name_of_turn

    choice = chosen(context, target)
    name = name_of_turn(_key(directory))
    turn = next((one for one in _turns(choice) if one.info.key == name), None)
    if turn is None:
        raise BackgateError(f"turns: no gateway is making {directory}: see `backgate turns list`")
    if turn.gateway and turn.gateway == _own(choice):
        _end_own(choice)
    else:
        if not yes:
            click.confirm(_question(turn, directory), abort=True)
        _with_store(choice, lambda store: end(store, turn))
    _print(choice, _turns(choice), as_json)


def _question(turn: "Turn", directory: str) -> str:
    since = time_text(turn.info.mtime_ns)
    host = f"on {_shown(turn.said.host)}" if turn.said.host else "which does not say where it runs"
    return f"Will the gateway {host}, making {directory} since {since}, never run again?"


def _end_own(choice: Choice) -> None:
    """Do what the next start of the gateway does; `UsageError` while it is running."""
    from backgate.cli.spool import with_spool

    async def act(spool: "Spool") -> None:
        await spool.is_recovered.wait()

    with_spool(choice, act)


def _turns(choice: Choice) -> "list[Turn]":
    from backgate.gateway.turns import turns_in

    return _with_store(choice, turns_in)


def _own(choice: Choice) -> str:
    """Return what this machine's gateway of the repository is called."""
    from backgate.gateway.journal import read_journal
    from backgate.gateway.places import places_of

    return read_journal(places_of(choice.config).spool)[0].header.gateway


def _with_store(choice: Choice, act: "Callable[[ObjectStore], Awaitable[T]]") -> T:
    import trio

    from backgate.gateway.credentials import credentials_of
    from backgate.gateway.providers import open_provider
    from backgate.gateway.store import ObjectStore

    async def run() -> T:
        config = choice.config
        provider, prefix = open_provider(config, credentials_of(config))
        patience = config.backups_patience
        async with aclosing(ObjectStore(provider, prefix=prefix, patience=patience)) as store:
            return await act(store)

    return trio.run(run)


def _print(choice: Choice, turns: "list[Turn]", as_json: bool) -> None:
    own = _own(choice)
    if as_json:
        print_json([_record(one, own) for one in turns])
    elif turns:
        rows = [
            (
                time_text(one.info.mtime_ns),
                "this one" if own and one.gateway == own else _shown(one.gateway[:SHOWN]) or "?",
                _shown(one.said.host) or "?",
                _shown(f"repository/{one.said.directory[:-1]}") if one.said.directory else "?",
            )
            for one in turns
        ]
        print_table(("SINCE", "GATEWAY", "HOST", "DIRECTORY"), rows)


def _record(turn: "Turn", own: str) -> dict[str, Any]:
    return {
        "directory": turn.said.directory,
        "host": turn.said.host,
        "gateway": turn.gateway,
        "is_own": bool(own) and turn.gateway == own,
        "since_ns": turn.info.mtime_ns,
        "object": turn.info.key,
    }


def _shown(text: str) -> str:
    return printable(text.encode("utf-8", "backslashreplace"))


def _key(path: str) -> str:
    """Return the key of the directory that DIRECTORY names: its path below `repository/`."""
    name = path.strip("/")
    if not name.startswith("repository/"):
        raise UsageError(f"turns: {path}: write it as it is listed: repository/{name}")
    return f"{name.removeprefix('repository/')}/"

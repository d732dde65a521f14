"""`backgate cache`: the metadata cache, which answers listings."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from backgate.cli.options import Choice, chosen, repository_options, target_argument
from backgate.cli.output import json_option, print_json, progress_bar
from backgate.gateway.errors import UsageError

if TYPE_CHECKING:
    from backgate.cli.output import Progress
    from backgate.gateway.repository import Repository


@click.group()
def command() -> None:
    """Show and mend the metadata cache, which answers listings.

    It is shared by all mounts and commands of this user, and can be deleted at any time without
    loss; what is in the store is then listed again.
    """


@command.command()
@target_argument
@repository_options
@json_option
@click.pass_context
def status(context: click.Context, target: str, as_json: bool) -> None:
    """Show what the cache knows, how old it is, and how listings have gone.

    \b
    Example:
      backgate cache status offsite
    """

    async def act(repository: "Repository") -> Mapping[str, Any]:
        return asdict(repository.metadata.status())

    _print(_with_repository(chosen(context, target), act), as_json)


@command.command()
@target_argument
@repository_options
@json_option
@click.pass_context
def refresh(context: click.Context, target: str, as_json: bool) -> None:
    """List a directory again now, or everything, and keep what is found.

    TARGET:repository/PATH lists that directory alone. Use it when something else has written to a
    repository that is configured as exclusive.

    \b
    Examples:
      backgate cache refresh offsite
      backgate cache refresh offsite:repository/web
    """
    choice = chosen(context, target)
    prefix = _prefix(choice)

    async def act(repository: "Repository") -> Mapping[str, Any]:
        await repository.metadata.refresh(prefix)
        return asdict(repository.metadata.status())

    _print(_with_repository(choice, act), as_json)


@command.command()
@target_argument
@repository_options
@json_option
@click.pass_context
def rebuild(context: click.Context, target: str, as_json: bool) -> None:
    """Forget everything, and list the whole repository anew.

    Mounts that are running go on: what they ask for meanwhile is listed for them first.

    \b
    Example:
      backgate cache rebuild offsite
    """
    with progress_bar("listing", is_bytes=False, show=not as_json) as progress:
        act = _rebuilding(progress)
        found = _with_repository(chosen(context, target), act)
    _print(found, as_json)


def _rebuilding(progress: "Progress") -> "Callable[[Repository], Awaitable[Mapping[str, Any]]]":
    async def act(repository: "Repository") -> Mapping[str, Any]:
        await repository.metadata.rebuild(progress)
        return asdict(repository.metadata.status())

    return act


def _with_repository(
    choice: Choice, act: "Callable[[Repository], Awaitable[Mapping[str, Any]]]"
) -> Mapping[str, Any]:
    import trio

    from backgate.gateway.credentials import credentials_of
    from backgate.gateway.places import places_of
    from backgate.gateway.repository import open_repository

    async def run() -> Mapping[str, Any]:
        config = choice.config
        places, credentials = places_of(config), credentials_of(config)
        async with open_repository(
            config, places, credentials, writable=False, crawls=False
        ) as repository:
            return await act(repository)

    return trio.run(run)


def _prefix(choice: Choice) -> str:
    top, _, path = choice.target.path.partition("/")
    if top not in ("", "repository"):
        raise UsageError(f"cache: {choice.target}: only repository/ is listed by the store")
    return f"{path}/" if path else ""


def _print(found: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for label, text in _described(found):
        click.echo(f"{label:18} {text}")


def _described(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from backgate.gateway.units import size_to_text

    yield "objects", f"{found['objects']}, {size_to_text(found['bytes'])}"
    yield "listed", coverage_text(found)
    yield "confirmed", "-" if found["age"] is None else f"{found['age']:.0f} s ago"
    yield "pages listed", f"{found['pages']}, {found['timeouts']} more were not given"
    yield "page size", f"{found['page_size']} keys"
    yield "order", "by key" if found["lists_in_order"] else "not by key: passes are compared whole"
    yield "index", size_to_text(found["index_size"])
    if found["last_error"]:
        yield "last error", found["last_error"]


def coverage_text(found: Mapping[str, Any]) -> str:
    """Return how much of the store the cache knows, for people."""
    if found["is_complete"]:
        return "completely"
    share = "partly" if found["coverage"] is None else f"{found['coverage']:.0%}"
    return f"{share}, going on" if found["is_crawling"] else share

"""`backgate cache`: the metadata cache, which answers listings."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from backgate.cli.options import Choice, chosen, repository_options, target_argument
from backgate.cli.output import json_option, print_json, progress_bar
from backgate.gateway.errors import InvalidKey, UsageError
from backgate.gateway.keys import key_of

if TYPE_CHECKING:
    from backgate.gateway.metadata.cache import Metadata

Act: TypeAlias = "Callable[[Metadata], Awaitable[None]]"


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

    async def act(_metadata: "Metadata") -> None:
        """Look, and touch nothing."""

    _print(_with_metadata(chosen(context, target), act), as_json)


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

    async def act(metadata: "Metadata") -> None:
        await metadata.refresh(prefix)

    _print(_with_metadata(choice, act), as_json)


@command.command()
@target_argument
@repository_options
@json_option
@click.pass_context
def rebuild(context: click.Context, target: str, as_json: bool) -> None:
    """Forget everything, and list the whole repository anew.

    Mounts that are running go on: what they ask for meanwhile is listed for them first. Attributes
    that were set after a file was stored are kept in the cache alone, except in a mirror: they are
    forgotten.

    \b
    Example:
      backgate cache rebuild offsite
    """
    from backgate.gateway.kinds import forget_kind
    from backgate.gateway.places import places_of

    choice = chosen(context, target)
    with progress_bar("listing", is_bytes=False, show=not as_json) as progress:

        async def act(metadata: "Metadata") -> None:
            await metadata.rebuild(progress)
            forget_kind(places_of(choice.config).cache)

        found = _with_metadata(choice, act)
    _print(found, as_json)


def _with_metadata(choice: Choice, act: Act) -> Mapping[str, Any]:
    """Open the metadata cache alone, so that its state can be told whatever the store says."""
    import trio

    from backgate.gateway.credentials import credentials_of
    from backgate.gateway.metadata.cache import open_metadata
    from backgate.gateway.metadata.place import place_of
    from backgate.gateway.places import places_of
    from backgate.gateway.providers import open_provider
    from backgate.gateway.repository import METADATA
    from backgate.gateway.store import ObjectStore

    async def run() -> Mapping[str, Any]:
        config = choice.config
        provider, prefix = open_provider(config, credentials_of(config))
        async with aclosing(
            ObjectStore(provider, prefix=prefix, patience=config.patience)
        ) as store:
            place = place_of(config, places_of(config).cache / METADATA)
            age = config.max_age
            async with open_metadata(
                store, place, writers=config.writers, max_age=age, crawls=False
            ) as metadata:
                await act(metadata)
                return asdict(await metadata.status())

    return trio.run(run)


def _prefix(choice: Choice) -> str:
    """Return the prefix of the directory that TARGET names, as the store knows it."""
    top, _, path = choice.target.path.strip("/").partition("/")
    if top not in ("", "repository"):
        raise UsageError(f"cache: {choice.target}: only repository/ is listed by the store")
    try:
        return f"{key_of(path.split('/'))}/" if path else ""
    except InvalidKey as error:
        raise UsageError(f"cache: {choice.target}: {error}") from error


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
    cost = "" if found["cost"] is None else f", about ${found['cost']:.2f}"
    yield "LIST requests", f"{found['requests']}{cost}"
    yield "order", "by key" if found["lists_in_order"] else "not by key: passes are compared whole"
    yield "compared", f"{found['audited']} samples, {found['drifted']} had changed in the store"
    size = found["index_size"]
    yield "index", "in a database" if size is None else size_to_text(size)
    if found["index_trouble"]:
        yield "index fails", found["index_trouble"]
    if found["last_error"]:
        age = found["last_error_age"]
        yield "last error", found["last_error"] + (f", {age:.0f} s ago" if age is not None else "")


def coverage_text(found: Mapping[str, Any]) -> str:
    """Return how much of the store the cache knows, for people."""
    if found["is_complete"]:
        return "completely"
    share = "partly" if found["coverage"] is None else f"{found['coverage']:.0%}"
    return f"{share}, going on" if found["is_crawling"] else share

"""`backgate find`: everything below a directory of the tree that fits, without a mount."""

import fnmatch
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from backgate.cli.options import chosen, repository_options, target_argument
from backgate.cli.output import JsonArray, json_option, print_name, printable
from backgate.gateway.errors import BackgateError, UsageError

if TYPE_CHECKING:
    from backgate.cli.session import Session
    from backgate.fs.tree import Entry
    from backgate.fs.walk import Place

TYPES = {"f": "is_file", "d": "is_directory", "l": "is_symlink"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an entry must be to be printed; None: anything."""

    name: str | None
    path: str | None
    type: str | None
    size: Callable[[int], bool]

    def __call__(self, path: bytes, entry: "Entry") -> bool:
        if self.name is not None and not fnmatch.fnmatchcase(os.fsdecode(entry.name), self.name):
            return False
        if self.path is not None and not fnmatch.fnmatchcase(os.fsdecode(path), self.path):
            return False
        return (self.type is None or getattr(entry, TYPES[self.type])) and self.size(entry.size)


@click.command()
@target_argument
@click.option("--name", metavar="PATTERN", help="The name fits, with *, ? and [abc].")
@click.option("--path", metavar="PATTERN", help="The whole path fits; * crosses slashes.")
@click.option("--type", "kind", type=click.Choice(sorted(TYPES)), help="File, directory or link.")
@click.option("--size", metavar="[+-]SIZE", help="Above (+) or below (-) a size, such as +10MiB.")
@click.option("-0", "--print0", is_flag=True, help="End paths with NUL, for xargs -0.")
@repository_options
@json_option
@click.pass_context
def command(
    context: click.Context,
    target: str,
    name: str | None,
    path: str | None,
    kind: str | None,
    size: str | None,
    print0: bool,
    as_json: bool,
) -> None:
    """Print everything below a directory of the tree, without a mount.

    Paths are printed from the top of the tree. A backup that cannot be read is reported and
    passed over; the exit code is then 1.

    \b
    Examples:
      backgate find offsite:backups/restic/web01/latest --name '*.conf'
      backgate find offsite:backups --type f --size +1GiB
    """
    from backgate.cli.session import in_session

    wanted = Wanted(name, path, kind, _size_test(size))
    array = JsonArray() if as_json else None

    async def act(session: "Session") -> bool:
        return await _find(session, wanted, array, b"\0" if print0 else b"\n")

    is_whole = in_session(chosen(context, target), act)
    if array is not None:
        array.close()
    context.exit(0 if is_whole else 1)


async def _find(session: "Session", wanted: Wanted, array: JsonArray | None, end: bytes) -> bool:
    from backgate.cli.entries import entry_record
    from backgate.fs.visit import settled, visit

    top = os.fsencode(session.choice.target.path)
    failed = []

    async def see(below: bytes, place: "Place", entry: "Entry") -> bool:
        path = b"/".join(part for part in (top, below) if part)
        if wanted(path, entry):
            if array is not None:
                array.add(entry_record(path, await settled(*place, entry)))
            else:
                print_name(path, end)
        return True

    def complain(below: bytes, error: BackgateError) -> None:
        failed.append(below)
        click.echo(f"backgate: {printable(top + b'/' + below)}: {error}", err=True)

    await visit(await session.place(session.choice.target.path), see, complain)
    return not failed


def _size_test(text: str | None) -> Callable[[int], bool]:
    from backgate.gateway.units import size_from_text

    if text is None:
        return lambda _: True
    try:
        size = size_from_text(text.lstrip("+-"))
    except ValueError as error:
        raise UsageError(f"--size: {error}") from error
    if text.startswith("+"):
        return lambda found: found > size
    if text.startswith("-"):
        return lambda found: found < size
    return lambda found: found == size

"""`backgate find`: everything below a directory of the tree that fits, without a mount."""

import fnmatch
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from backgate.cli.options import chosen, repository_options, target_argument
from backgate.cli.output import (
    JsonArray,
    Progress,
    json_option,
    print_name,
    printable,
    progress_bar,
)
from backgate.gateway.errors import BackgateError, UsageError

if TYPE_CHECKING:
    import trio

    from backgate.cli.session import Session
    from backgate.fs.tree import Entry
    from backgate.fs.walk import Place

BACKUPS_AT_ONCE = 4  # searched together; each may need a parser of its own
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

    Paths are printed from the top of the tree. Several backups are searched at once, each in its
    own order, and a bar on a terminal tells how many are done. A backup that cannot be read is
    reported and passed over; the exit code is then 1.

    \b
    Examples:
      backgate find offsite:backups/restic/web01/latest --name '*.conf'
      backgate find offsite:backups --type f --size +1GiB
    """
    from backgate.cli.session import in_session

    wanted = Wanted(name, path, kind, _size_test(size))
    array = JsonArray() if as_json else None

    end = b"\0" if print0 else b"\n"
    with progress_bar("searching", is_bytes=False) as progress:

        async def act(session: "Session") -> bool:
            return await _Search(session, wanted, array, end, progress).run()

        is_whole = in_session(chosen(context, target), act)
    if array is not None:
        array.close()
    context.exit(0 if is_whole else 1)


class _Search:
    """One search; the backups that it comes to are searched beside each other."""

    def __init__(
        self,
        session: "Session",
        wanted: Wanted,
        array: JsonArray | None,
        end: bytes,
        progress: Progress,
    ) -> None:
        import trio

        self._session, self._wanted, self._array, self._end = session, wanted, array, end
        self._progress = progress
        self._turns = trio.CapacityLimiter(BACKUPS_AT_ONCE)
        self._done = self._total = 0  # backups
        self._is_whole = True

    async def run(self) -> bool:
        """Search all; False when something could not be read."""
        from backgate.fs.nurseries import open_nursery

        path = self._session.choice.target.path
        async with open_nursery() as nursery:
            await self._visit(os.fsencode(path), await self._session.place(path), nursery)
        return self._is_whole

    async def _visit(self, top: bytes, place: "Place", nursery: "trio.Nursery") -> None:
        from backgate.fs.visit import visit

        async def see(below: bytes, place: "Place", entry: "Entry") -> bool:
            path = b"/".join(part for part in (top, below) if part)
            if self._wanted(path, entry):
                await self._print(path, place, entry)
            if place[0] is not self._session.shown.catalogue or entry.junction is None:
                return True
            await self._turns.acquire_on_behalf_of(path)  # before, so that none waits as a task
            self._count(total=1)
            nursery.start_soon(self._visit_backup, path, (place[0], entry), nursery)
            return False

        def complain(below: bytes, error: BackgateError) -> None:
            self._is_whole = False
            path = b"/".join(part for part in (top, below) if part)
            click.echo(f"backgate: {printable(path)}: {error}", err=True)

        await visit(place, see, complain)

    async def _visit_backup(self, path: bytes, place: "Place", nursery: "trio.Nursery") -> None:
        try:
            await self._visit(path, place, nursery)
            self._count(done=1)
        finally:
            self._turns.release_on_behalf_of(path)

    async def _print(self, path: bytes, place: "Place", entry: "Entry") -> None:
        from backgate.cli.entries import entry_record
        from backgate.fs.visit import settled

        if self._array is None:
            print_name(path, self._end)
        else:
            self._array.add(entry_record(path, await settled(*place, entry)))

    def _count(self, *, done: int = 0, total: int = 0) -> None:
        self._done, self._total = self._done + done, self._total + total
        self._progress(self._done, self._total)


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

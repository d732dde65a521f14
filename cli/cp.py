"""`backgate cp`: restore files and directories out of the tree to local disk."""

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import click

from backgate.cli.options import Choice, chosen, repository_options
from backgate.cli.output import (
    Progress,
    json_option,
    print_json,
    printable,
    progress_bar,
    shows_progress,
)
from backgate.gateway.errors import UsageError

if TYPE_CHECKING:
    from backgate.cli.session import Session
    from backgate.fs.restore import Restored
    from backgate.fs.tree import Entry
    from backgate.fs.walk import Place


@dataclass(frozen=True, slots=True)
class Job:
    """One source, and the local directory and name that it is copied to."""

    choice: Choice
    directory: str
    name: str  # "": what is in the source, not the source itself
    is_recursive: bool


@dataclass(slots=True)
class Failures:
    """What could not be copied; said at once, and counted for the exit code."""

    directory: str = ""  # the local one that is copied into
    said: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, path: bytes, error: Exception) -> None:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        self.said.append({"path": printable(path), "reason": reason})
        is_local = isinstance(error, OSError)  # the tree's own errors are others
        named = os.path.join(os.fsencode(self.directory), path) if is_local else path
        click.echo(f"backgate: {printable(named)}: {reason}", err=True)


@click.command()
@click.argument("sources", metavar="TARGET:PATH... DESTINATION", nargs=-1, required=True)
@click.option("-r", "--recursive", "is_recursive", is_flag=True, help="Directories as well.")
@repository_options
@json_option
@click.pass_context
def command(
    context: click.Context, sources: tuple[str, ...], is_recursive: bool, as_json: bool
) -> None:
    """Restore files or directories of the tree to local disk, without a mount.

    Keeps times, modes, symlinks, hard links, holes and extended attributes, and owners when run
    as root. A directory is copied into DESTINATION, under its own name; with a slash at its end,
    what is in it. What is there already with the same size and time is not copied again, and a
    file that was cut off is completed: run the same command again after an interruption.

    \b
    Examples:
      backgate cp offsite:backups/restic/web01/latest/etc/fstab .
      backgate cp -r offsite:backups/restic/web01/latest/home/ann /restore
      backgate cp -r offsite:backups/tar/monday/ /restore/monday
    """
    from backgate.cli.session import in_session

    if len(sources) == 1:
        raise UsageError(f"cp: where to? write: backgate cp {sources[0]} DIRECTORY")
    jobs = [_job(context, source, sources[-1], is_recursive) for source in sources[:-1]]
    if len(jobs) > 1 and not os.path.isdir(sources[-1]):
        raise UsageError(f"cp: {sources[-1]}: several sources need a directory that is there")
    failures = Failures()
    with progress_bar("restoring", is_bytes=True, show=not as_json) as progress:
        done = [in_session(job.choice, _restoring(job, failures, progress)) for job in jobs]
    if as_json:
        print_json({"restored": [asdict(one) for one in done], "failures": failures.said})
    else:
        for one in done:
            click.echo(_summary(one))
    context.exit(1 if failures.said else 0)


def _job(context: click.Context, source: str, destination: str, is_recursive: bool) -> Job:
    choice = chosen(context, source)
    name = "" if source.endswith(("/", "/.")) else os.path.basename(choice.target.path)
    return Job(choice, destination, name, is_recursive)


def _restoring(
    job: Job, failures: Failures, progress: Progress
) -> Callable[["Session"], Awaitable["Restored"]]:
    async def restoring(session: "Session") -> "Restored":
        import trio

        from backgate.fs.restore import Restore

        place = await session.place(job.choice.target.path)
        directory, name = _destination(job, place[1])
        failures.directory = directory
        entries = [place[1].named(os.fsencode(name))] if name else None
        meter = Meter(progress)
        with _opened(directory) as top:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(meter.measure, place)
                restore = Restore(nursery, top, failures, meter.advance)
                await restore.copy(place, entries)
                nursery.cancel_scope.cancel()
        return restore.done

    return restoring


def _destination(job: Job, entry: "Entry") -> tuple[str, str]:
    """Return the local directory to copy into, made if need be, and the name to copy to."""
    if entry.is_directory:
        if not job.is_recursive:
            raise UsageError(f"cp: {job.choice.target}: is a directory: add -r")
        os.makedirs(job.directory, exist_ok=True)
        return job.directory, job.name
    if os.path.isdir(job.directory) or job.directory.endswith("/"):
        return job.directory, job.name
    parent, name = os.path.split(job.directory)
    return parent or ".", name


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _summary(done: "Restored") -> str:
    from backgate.gateway.units import size_to_text

    there = f", {done.skipped} of them there already" if done.skipped else ""
    failed = f"; {done.failed} could not be copied" if done.failed else ""
    return (
        f"files: {done.files}{there}, directories: {done.directories}, "
        f"{size_to_text(done.bytes)}{failed}"
    )


class Meter:
    """Moves the bar, and learns meanwhile how much there is to copy."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done = self._total = 0  # bytes

    def advance(self, size: int) -> None:
        """Note that `size` more bytes are right."""
        self._done += size
        self._progress(self._done, max(self._done, self._total))

    async def measure(self, place: "Place") -> None:
        """Add up the sizes below `place`; only when somebody looks on."""
        from backgate.fs.visit import visit

        if not shows_progress():
            return
        if place[1].is_file:
            self._total = place[1].size
            return

        async def see(_path: bytes, _place: "Place", entry: "Entry") -> bool:
            self._total += entry.size if entry.is_file else 0
            return True

        await visit(place, see, lambda _path, _error: None)  # the copying will complain

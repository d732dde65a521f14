"""What commands print: JSON for programs, aligned text for people, progress only on a terminal."""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import click

from backgate.gateway.units import SECOND_NS


class Progress(Protocol):
    """Moves a bar: what is done, and of how much, as far as that is known."""

    def __call__(self, done: int, total: int | None, label: str | None = None) -> None: ...


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def print_json(value: Any) -> None:
    """Print `value` as one JSON document; bytes that are not UTF-8 stay as `\\udcXX`."""
    click.echo(_json(value, indent=2))


def name_text(name: bytes) -> str:
    """Return a file's name for JSON and messages, nothing lost (PEP 383)."""
    return name.decode("utf-8", "surrogateescape")


def print_name(name: bytes, end: bytes = b"\n") -> None:
    """Print a file's name: as it is for programs, with control characters escaped for a terminal.

    A backup's names are untrusted; an escape sequence in one must not reach somebody's terminal.
    """
    if sys.stdout.isatty():
        click.echo(printable(name), nl=end == b"\n")
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(name + end)


def printable(name: bytes) -> str:
    """Return `name` with everything escaped that a terminal might obey."""
    text = name.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], right: str = "") -> None:
    """Print `rows` below `head` in columns; the columns whose heads are in `right` end flush."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    flush = [title in right.split() for title in head]
    for line in lines:
        cells = [
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(line, widths, flush, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def time_text(time_ns: int) -> str:
    """Return a time as backups' directories show it, UTC: `2026-11-20T02-00-00Z`, with colons."""
    seconds = time_ns // SECOND_NS
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):  # a damaged backup may claim any time
        return f"@{seconds}"


def shows_progress() -> bool:
    """True when somebody looks on at a terminal that can move a bar."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress_bar(label: str, *, is_bytes: bool, show: bool = True) -> Iterator[Progress]:
    """Provide a function that moves a bar on standard error; without a terminal it does nothing."""
    if not show or not shows_progress():
        yield lambda done, total, label=None: None
        return
    from rich.console import Console  # 90 ms, only when somebody looks on
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn()]
    columns += [DownloadColumn(), TransferSpeedColumn()] if is_bytes else [MofNCompleteColumn()]
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)

        def advance(done: int, total: int | None, label: str | None = None) -> None:
            bar.update(task, completed=done, total=total, description=label)

        yield advance


class JsonArray:
    """Prints a JSON array element by element, for what may be too long to be kept."""

    def __init__(self) -> None:
        self._separator = "["

    def add(self, value: Any) -> None:
        """Print one more element."""
        click.echo(f"{self._separator}\n{_json(value)}", nl=False)
        self._separator = ","

    def close(self) -> None:
        """Print the end."""
        click.echo("[]" if self._separator == "[" else "\n]")


def _json(value: Any, indent: int | None = None) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text

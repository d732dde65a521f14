"""Say what a command waits for until everything written is in the store.

On a terminal by a bar that moves with every part that has arrived, and says which file it is; for
a log by a line now and then.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import click

from backgate.cli.output import printable, progress_bar, shows_progress

FIRST_AFTER = 2.0  # seconds until a line for the log; most waits are shorter
AGAIN_AFTER = 30.0  # seconds until the next
NAME_MAX = 40  # characters of a file's name beside the bar

Answer: TypeAlias = Mapping[str, Any]  # files, bytes, and perhaps the first file and a reason


@contextmanager
def told(who: str, *, show: bool) -> Iterator[Callable[[Answer], None]]:
    """Provide what is called with each answer while `who` waits."""
    with progress_bar("storing what was written", is_bytes=True, show=show) as progress:
        most, said_at = 0, time.monotonic() + FIRST_AFTER - AGAIN_AFTER

        def advance(answer: Answer) -> None:
            nonlocal most, said_at
            most = max(most, answer["bytes"])
            progress(most - answer["bytes"], most, _label(answer))
            now = time.monotonic()
            if show and not shows_progress() and now >= said_at + AGAIN_AFTER:
                said_at = now
                click.echo(f"backgate: {who}: {_line(answer)}", err=True)

        yield advance


def _label(answer: Answer) -> str:
    if answer.get("reason"):
        return f"waiting: {_printable(answer['reason'])[: 2 * NAME_MAX]}"
    first = _printable(answer.get("first", ""))
    if not first:
        return "storing what was written"
    name = first if len(first) <= NAME_MAX else f"...{first[3 - NAME_MAX :]}"
    more = answer["files"] - 1
    return f"storing {name}" + (f" and {more} more" if more > 0 else "")


def _line(answer: Answer) -> str:
    from backgate.gateway.units import size_to_text

    count = answer["files"]
    files = f"{count} file{'' if count == 1 else 's'} ({size_to_text(answer['bytes'])})"
    first = _printable(answer.get("first", ""))
    are = "is" if count == 1 else "are"
    text = f"waiting until {files} {are} in the store" + (f", {first} first" if first else "")
    return text + (f": {_printable(answer['reason'])}" if answer.get("reason") else "")


def _printable(text: str) -> str:
    return printable(text.encode("utf-8", "surrogateescape"))

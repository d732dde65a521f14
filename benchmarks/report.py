"""Figures as tables: medians, spread, ratios, memory; and the page that keeps the last of each.

A run replaces the sections of what it measured and leaves the others, so each says by which command
it was made, when, and on which of the machines that the page lists.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from backgate.gateway.units import size_to_text
from benchmarks.bench import Bench, Figure, Measurement
from benchmarks.machine import description

US = "backgate"
HEADER = """\
# Benchmarks

Every contender worked on the same bucket of the same server in the same run, in turns, each from a
fresh mount with empty caches unless a line says otherwise. Medians over the rounds, and the lowest
and the highest. *Ratio* says how many times better Backgate is; a number below 1 means that the
other one is better. *Memory* is the most that the process ever held resident. *Load* is the
machine's load average when the run began: what more than two cores' worth of other work does to
seconds it does to everybody's, and the ratios say more.

{machines}

Options:

{options}
"""
MACHINE = re.compile(r"^- machine \d+: (.*)$", re.MULTILINE)
OPTIONS = re.compile(r"^- ([^`\n]*): (.*`.*)$", re.MULTILINE)
HEADING = re.compile(r"^## (.*)$", re.MULTILINE)


class Page:
    """The page as it is, and as it becomes; made from its text, which may be empty."""

    def __init__(self, text: str) -> None:
        header, *pieces = HEADING.split(text)
        self._machines = MACHINE.findall(header)
        self._options = dict(OPTIONS.findall(header))
        bodies = (body.strip("\n") for body in pieces[1::2])
        self._sections = dict(zip(pieces[::2], bodies, strict=True))

    def put(self, command: str, bench: Bench, measurements: Sequence[Measurement]) -> None:
        """Replace the sections of `measurements`; a new one stands behind the one before it."""
        self._options |= {one.name: one.options for one in bench.contenders.values()}
        machine = "; ".join(description())
        if machine not in self._machines:
            self._machines.append(machine)
        made = (
            f"`{command}`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, rounds: {bench.sizes.rounds}, "
            f"load: {bench.load:.1f}, machine {self._machines.index(machine) + 1}"
        )
        before = ""
        for measurement in measurements:
            self._put(_title(measurement), f"({made})\n\n{_body(measurement)}".strip("\n"), before)
            before = _title(measurement)

    def text(self) -> str:
        """Return the page, as Markdown."""
        machines = [f"machine {number}: {line}" for number, line in enumerate(self._machines, 1)]
        options = [f"{name}: {text}" for name, text in self._options.items()]
        header = HEADER.format(machines=_bullets(machines), options=_bullets(options))
        sections = (f"## {title}\n\n{body}\n" for title, body in self._sections.items())
        return "\n".join([header, *sections])

    def _put(self, title: str, body: str, before: str) -> None:
        if title in self._sections or before not in self._sections:
            self._sections[title] = body
            return
        sections, self._sections = self._sections, {}
        for name, text in sections.items():
            self._sections[name] = text
            if name == before:
                self._sections[title] = body


def table(measurement: Measurement) -> str:
    """Return one measurement with its heading, the best contender first."""
    return f"## {_title(measurement)}\n\n{_body(measurement)}"


def _title(measurement: Measurement) -> str:
    return measurement.title[0].upper() + measurement.title[1:]


def _body(measurement: Measurement) -> str:
    figures = sorted(
        measurement.figures.items(),
        key=lambda item: item[1].median,
        reverse=measurement.more_is_better,
    )
    lines = [f"({measurement.note})", ""] if measurement.note else []
    lines += [f"| | {measurement.unit} | range | ratio | memory |", "|---|---:|---:|---:|---:|"]
    for name, figure in figures:
        lines.append(
            f"| {name} | {figure.median:.4g} | {min(figure.values):.4g} – "
            f"{max(figure.values):.4g} | {_ratio(measurement, figure)} | {_memory(figure)} |"
        )
    return "\n".join([*lines, ""])


def _ratio(measurement: Measurement, figure: Figure) -> str:
    ours = measurement.figures.get(US)
    if ours is None or ours is figure:
        return ""
    better, worse = ours.median, figure.median
    if not measurement.more_is_better:
        better, worse = worse, better
    return f"{better / worse:.2f}" if worse else ""


def _memory(figure: Figure) -> str:
    return size_to_text(figure.peak) if figure.peak else ""


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)

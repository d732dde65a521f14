"""Figures as tables: medians, spread, ratios, memory."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from backgate.gateway.units import size_to_text
from benchmarks.bench import Bench, Figure, Measurement
from benchmarks.machine import description

US = "backgate"
HEADER = """\
# Benchmarks

Made by `{command}`; it overwrites this page. Every contender worked on the same bucket of the
same server in the same run, in turns, each from a fresh mount with empty caches unless a line says
otherwise. Medians of {rounds} rounds; in brackets the lowest and the highest. *Ratio* says how many
times better Backgate is; a number below 1 means that the other one is better. *Memory* is the most
that the process ever held resident.

{when}

{machine}

Options:

{options}
"""


def page(command: str, bench: Bench, measurements: Sequence[Measurement]) -> str:
    """Return the whole page, as Markdown."""
    return "\n".join(
        [
            HEADER.format(
                command=command,
                rounds=bench.sizes.rounds,
                when=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
                machine=_bullets(description()),
                options=_bullets(f"{one.name}: {one.options}" for one in bench.contenders.values()),
            ),
            *(table(measurement) for measurement in measurements),
        ]
    )


def table(measurement: Measurement) -> str:
    """Return one measurement with its heading, the best contender first."""
    figures = sorted(
        measurement.figures.items(),
        key=lambda item: item[1].median,
        reverse=measurement.more_is_better,
    )
    lines = [f"## {measurement.title[0].upper()}{measurement.title[1:]}", ""]
    if measurement.note:
        lines += [f"({measurement.note})", ""]
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
